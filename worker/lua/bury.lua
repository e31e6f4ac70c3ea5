-- Give a delivery up whose record cannot be read: it is dead, and nothing comes back to it.
--
-- KEYS  1 delivery  2 pending deliveries  3 dead deliveries  4 job record
-- ARGV  1 delivery id
-- RETURNS  1 it was pending, 0 it was not
-- INVARIANT  the job's count of pending deliveries falls exactly when one leaves 'pending', where its job is known.
local is_hash = redis.call('TYPE', KEYS[1]).ok == 'hash'
local has_job = redis.call('TYPE', KEYS[4]).ok == 'hash'
redis.call('ZCARD', KEYS[3])
local sequence = redis.call('ZSCORE', KEYS[2], ARGV[1])
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
if is_hash then
  redis.call('HSET', KEYS[1], 'state', 'dead')
  redis.call('ZADD', KEYS[3], sequence, ARGV[1])
end
if has_job then redis.pcall('HINCRBY', KEYS[4], 'pending', -1) end
return 1
