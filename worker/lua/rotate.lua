-- Make a fresh webhook secret the current one; the one before signs on for a while.
--
-- KEYS  1 the current secret  2 those before, by the time until which they sign (ms)
-- ARGV  1 the fresh secret  2 for how long the one before signs on (ms)  3 how many may sign at a time
-- RETURNS  0 the fresh one is the current one, or was in an earlier call; else the time (ms) until which there are too
--          many for another, and nothing was written
-- INVARIANT  none stops signing before its time; a call that is repeated, because its answer was lost, rotates once,
--            even where another rotation came between; no two of those before have the same time.
local fresh, valid_ms, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local current = redis.call('GET', KEYS[1])
if current == fresh or redis.call('ZSCORE', KEYS[2], fresh) then return 0 end
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local before = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. string.format('%.0f', now_ms), '+inf', 'WITHSCORES')
if current and #before / 2 + 2 > most then return tonumber(before[2]) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now_ms))
if current then
  local until_ms = math.max(now_ms + valid_ms, #before > 0 and tonumber(before[#before]) + 1 or 0)
  redis.call('ZADD', KEYS[2], string.format('%.0f', until_ms), current)
  redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', until_ms))
end
redis.call('SET', KEYS[1], fresh)
return 0
