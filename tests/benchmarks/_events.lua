-- Sends new events, in calls of the size of the first argument; prints one line of JSON at the end.
-- The second argument begins their ids.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local size, name, sent = 1, "e", 0
local user_count, video_count = 24000, 40

local function event()
  sent = sent + 1
  return string.format(
    '{"user_id":"u%d","video_id":"v%d","event_id":"%s-%d","watched":12.5,"labels":{"click":true},"context":{"tab":"home"}}',
    (sent * 7919) % user_count, sent % video_count, name, sent)
end

init = function(arguments)
  size, name = tonumber(arguments[1]), arguments[2]
end

request = function()
  if size == 1 then
    return wrk.format(nil, "/v1/events", nil, event())
  end
  local events = {}
  for place = 1, size do
    events[place] = event()
  end
  return wrk.format(nil, "/v1/events", nil, '{"events":[' .. table.concat(events, ",") .. "]}")
end

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'JSON {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
