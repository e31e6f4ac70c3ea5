-- Read how the sending of webhooks stands.
--
-- ARGV  1 prefix of keys  2 most failing destinations to tell of
-- RETURNS  {deliveries that wait or are sent, those due and not sent, since when (ms) the oldest of them is due to a
--           destination that does not fail or '', {name, failing since (ms), failures, waiting, next try (ms)}...}
-- include destination
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local entries, due, oldest_ms, failing = 0, 0, nil, {}
for _, id in ipairs(redis.call('ZRANGE', ARGV[1] .. ':wheel:deliver', 0, -1)) do
  local fine, d = pcall(destination_read, ARGV[1], id)
  if fine then
    local waiting = redis.call('ZCARD', d.waiting)
    entries = entries + waiting + redis.call('ZCARD', d.sending)
    due = due + redis.call('ZCOUNT', d.waiting, '-inf', now_ms)
    if not d.failing then
      local first = tonumber(redis.call('ZRANGE', d.waiting, 0, 0, 'WITHSCORES')[2])
      if first and first <= now_ms and (not oldest_ms or first < oldest_ms) then oldest_ms = first end
    elseif #failing < tonumber(ARGV[2]) then
      local told = redis.call('HMGET', d.state, 'name', 'failing_since_ms', 'failures')
      failing[#failing + 1] = {told[1] or '', told[2] or '', told[3] or '', waiting, string.format('%d', d.shut_until_ms)}
    end
  end
end
local answer = {entries, due, oldest_ms and string.format('%d', oldest_ms) or ''}
for _, row in ipairs(failing) do answer[#answer + 1] = row end
return answer
