-- Have a delivery attempted again, from the start of its schedule.
--
-- KEYS  1 delivery  2 leases of deliveries  3 job record  4 delivered  5 dead  6 pending
--       (those of the destination: see destination)
-- ARGV  1 prefix of keys  2 destination  3 its name  4 its host  5 delivery id
--       6 the attempts of before that are kept (JSON)  7 how many those are: the schedule no longer counts them
--       8 most at a time to a destination  9 for how long (ms) a due delivery waits for a destination that fails
-- RETURNS  1 it is pending now, 0 there is no such delivery, or its job is gone
-- INVARIANT  the job's count of pending deliveries rises exactly when one becomes 'pending'; a claim that is under way
--            is not disturbed: a pending delivery is only made due. Whoever asks for it takes its destination for well,
--            so one that fails is tried at once.
-- include destination
local state = redis.call('HGET', KEYS[1], 'state')
local job_exists = redis.call('HEXISTS', KEYS[3], 'rev')
for i = 4, 6 do redis.call('ZCARD', KEYS[i]) end
local holder = redis.call('HGET', KEYS[2], ARGV[5])
if not state or job_exists == 0 then return 0 end
local d = destination_read(ARGV[1], ARGV[2])
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
if state ~= 'pending' then
  local seq = redis.call('HGET', KEYS[1], 'seq')
  redis.call('ZREM', KEYS[4], ARGV[5])
  redis.call('ZREM', KEYS[5], ARGV[5])
  redis.call('ZADD', KEYS[6], seq, ARGV[5])
  redis.call('HSET', KEYS[1], 'state', 'pending', 'attempts', ARGV[6], 'schedule_from', ARGV[7])
  redis.pcall('HINCRBY', KEYS[3], 'pending', 1)
  if redis.call('HGET', KEYS[3], 'gone_url') == redis.call('HGET', KEYS[1], 'url') then
    redis.call('HDEL', KEYS[3], 'gone_url')
  end
end
if not holder then
  redis.call('ZADD', d.waiting, now_ms, ARGV[5])
  redis.call('HSET', KEYS[1], 'next_at_ms', now_ms)
  redis.call('HSET', d.state, 'name', ARGV[3], 'host', ARGV[4])
  if d.failing then
    d.shut_until_ms = now_ms
    redis.call('HSET', d.state, 'shut_until_ms', now_ms)
  end
  destination_plan(d, now_ms, tonumber(ARGV[8]), tonumber(ARGV[9]))
end
return 1
