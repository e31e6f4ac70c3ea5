-- Read how the sending of webhooks stands.
--
-- KEYS  1 index of pending deliveries  2 failing destinations  (those of the destinations: see destination)
-- ARGV  1 prefix of keys  2 most failing destinations to tell of  3 most destinations to look at
-- RETURNS  {deliveries that are pending, those due and not being sent, since when (ms) the oldest of them is due to a
--           destination that does not fail or '', how many destinations fail,
--           {name, failing since (ms), failures, waiting, next try (ms)}...}
-- COST  of more destinations than it looks at, those whose turn is next are counted
-- include destination
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local entries, all_failing = redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2])
local due, oldest_ms, failing = 0, nil, {}
for _, id in ipairs(redis.call('ZRANGE', ARGV[1] .. ':wheel:deliver', 0, tonumber(ARGV[3]) - 1)) do
  local fine, count = pcall(redis.call, 'ZCOUNT', ARGV[1] .. ':waiting:' .. id, '-inf', now_ms)
  if fine and type(count) == 'number' and count > 0 then
    due = due + count
    if not redis.call('ZSCORE', KEYS[2], id) then
      local first = tonumber(redis.call('ZRANGE', ARGV[1] .. ':waiting:' .. id, 0, 0, 'WITHSCORES')[2])
      if not oldest_ms or first < oldest_ms then oldest_ms = first end
    end
  end
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[2]) - 1)) do
  local fine, d = pcall(destination_read, ARGV[1], id, now_ms, 1, 1)
  if fine then
    local told = redis.call('HMGET', d.state, 'name', 'failing_since_ms', 'failures')
    failing[#failing + 1] = {told[1] or '', told[2] or '', told[3] or '', redis.call('ZCARD', d.waiting),
      string.format('%d', d.shut_until_ms)}
  end
end
local answer = {entries, due, oldest_ms and string.format('%d', oldest_ms) or '', all_failing}
for _, row in ipairs(failing) do answer[#answer + 1] = row end
return answer
