-- Keep the bodies of calls that wait on arq's queue from expiring, where nobody has asked that they do.
--
-- KEYS  1 queue  2 counters
-- ARGV  1 rank of the first entry to look at  2 how many at most  3 what the key of a body begins with
--       4 how soon (ms) it would expire  5 the least life (ms) that is arq's and nobody's wish
-- RETURNS  {how many there were, ids of those that are kept from now on...}
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ids = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)
local kept = {}
for _, id in ipairs(ids) do
  local body = ARGV[3] .. id
  local left_ms = redis.call('PTTL', body)
  if left_ms >= 0 and left_ms < tonumber(ARGV[4]) and redis.call('TYPE', body).ok == 'string' then
    -- arq writes the time of the call last: "et"
    local called_ms = tonumber(string.match(redis.call('GETRANGE', body, -64, -1), '"et"%s*:%s*(%d+)%s*}%s*$') or '')
    if called_ms and now_ms + left_ms - called_ms >= tonumber(ARGV[5]) then kept[#kept + 1] = id end
  end
end
local answer = {#ids}
for _, id in ipairs(kept) do
  redis.call('PERSIST', ARGV[3] .. id)
  answer[#answer + 1] = id
end
if #kept > 0 then redis.pcall('HINCRBY', KEYS[2], 'upkeep_repairs_total|arq_body', #kept) end
return answer
