-- Sends new events, in calls of the size of the first argument; prints one line of JSON at the end.
-- The second argument begins their ids.
dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "") .. "_post.lua")

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
