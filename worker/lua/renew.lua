-- Prolong leases that are still the caller's.
--
-- KEYS  1 wheel  2 its leases
-- ARGV  1 lease (ms)  then for each claim: member, token
-- RETURNS  the members whose lease is no longer the caller's
-- INVARIANT  a lease of another's is never touched.
local clock = redis.call('TIME')
local until_ms = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])
local lost = {}
redis.call('ZREM', KEYS[1], '')  -- needs no memory, so that the rest is written however full Redis is
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], 'XX', until_ms, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
