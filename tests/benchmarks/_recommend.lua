-- Asks for recommendations of one user after another; prints one line of JSON at the end.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local asked = 0
local user_count = 24000

request = function()
  asked = asked + 1
  -- 7919 is prime to the number of users: all of them come, neighbours far apart.
  local user = (asked * 7919) % user_count
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
