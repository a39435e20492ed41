-- Recommendations at a steady rate, and for every fifth of them an event of the same user.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local asked = 0
local user_count, video_count = 24000, 7583

delay = function()
  return tonumber(os.getenv("SOAK_DELAY_MS"))
end

request = function()
  asked = asked + 1
  local user = (asked * 7919) % user_count
  if asked % 5 == 0 then
    local video = 1 + (asked * 104729) % video_count
    local body = string.format('{"user_id": "u%d", "video_id": "v%d", "watched": 3.5}', user, video)
    return wrk.format(nil, "/v1/events", nil, body)
  end
  local body = string.format('{"user_id": "u%d", "k": 10, "context": {"tab": "%d"}}', user, 1 + asked % 10)
  return wrk.format(nil, "/v1/recommend", nil, body)
end

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'JSON {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
