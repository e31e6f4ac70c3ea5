-- Have a delivery attempted again, from the start of its schedule.
--
-- KEYS  1 delivery  2 deliver wheel  3 its leases  4 job record  5 delivered  6 dead  7 pending
-- ARGV  1 delivery id  2 how many attempts it has had, which the schedule no longer counts
-- RETURNS  1 it is pending now, 0 there is no such delivery, or its job is gone
-- INVARIANT  the job's count of pending deliveries rises exactly when one becomes 'pending'; a claim that is under way
--            is not disturbed: a pending delivery is only made due.
local state = redis.call('HGET', KEYS[1], 'state')
local job_exists = redis.call('HEXISTS', KEYS[4], 'rev')
for _, i in ipairs({2, 5, 6, 7}) do redis.call('ZCARD', KEYS[i]) end
local holder = redis.call('HGET', KEYS[3], ARGV[1])
if not state or job_exists == 0 then return 0 end
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
if state ~= 'pending' then
  local seq = redis.call('HGET', KEYS[1], 'seq')
  redis.call('ZREM', KEYS[5], ARGV[1])
  redis.call('ZREM', KEYS[6], ARGV[1])
  redis.call('ZADD', KEYS[7], seq, ARGV[1])
  redis.call('HSET', KEYS[1], 'state', 'pending', 'schedule_from', ARGV[2])
  redis.pcall('HINCRBY', KEYS[4], 'pending', 1)
  if redis.call('HGET', KEYS[4], 'gone_url') == redis.call('HGET', KEYS[1], 'url') then
    redis.call('HDEL', KEYS[4], 'gone_url')
  end
end
if not holder then
  redis.call('ZADD', KEYS[2], now_ms, ARGV[1])
  redis.call('HSET', KEYS[1], 'next_at_ms', now_ms)
end
return 1
