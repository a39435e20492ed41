-- Recommendations at a steady rate, and after every fourth of them an event of the same user.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "") .. "_post.lua")

local asked = 0
local user_count, video_count = 24000, 7583

delay = function()
  return tonumber(os.getenv("SOAK_DELAY_MS"))
end

request = function()
  asked = asked + 1
  if asked % 5 == 0 then
    local user = ((asked - 1) * 7919) % user_count
    local video = 1 + (asked * 104729) % video_count
    local body = string.format('{"user_id": "u%d", "video_id": "v%d", "watched": 3.5}', user, video)
    return wrk.format(nil, "/v1/events", nil, body)
  end
  local user = (asked * 7919) % user_count
  local body = string.format('{"user_id": "u%d", "k": 10, "context": {"tab": "%d"}}', user, 1 + asked % 10)
  return wrk.format(nil, "/v1/recommend", nil, body)
end
