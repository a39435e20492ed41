-- Asks for recommendations of one user after another; prints one line of JSON at the end.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "") .. "_post.lua")

local asked = 0
local user_count = 24000

request = function()
  asked = asked + 1
  -- 7919 is prime to the number of users: all of them come, neighbours far apart.
  local user = (asked * 7919) % user_count
  local body = string.format('{"user_id": "u%d", "k": 10, "context": {"tab": "%d"}}', user, 1 + asked % 10)
  return wrk.format(nil, "/v1/recommend", nil, body)
end
