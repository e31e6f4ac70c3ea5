-- Have a delivery attempted again, from the start of its schedule.
--
-- KEYS  1 delivery  2 leases of deliveries  3 job record  4 delivered  5 dead  6 pending  7 events
--       (those of the destination: see destination)
-- ARGV  1 prefix of keys  2 destination  3 most at a time to it  4 most to its host
--       5 for how long (ms) a due delivery waits for a destination that fails
--       6 the destination's name  7 its host  8 delivery id  9 how many of its attempts are kept
-- RETURNS  'again' it is pending now, 'gone' there is no such delivery, or its job is gone; 'trimmed' its event is
-- INVARIANT  the job's count of pending deliveries rises exactly when one becomes 'pending'; a claim that is under way
--            is not disturbed: should it fail, the delivery is due at once. Whoever asks for it takes its destination for
--            well, so one that fails is tried at once.
-- include destination
local state = redis.call('HGET', KEYS[1], 'state')
local job_exists = redis.call('HEXISTS', KEYS[3], 'rev')
for i = 4, 6 do redis.call('ZCARD', KEYS[i]) end
local holder = redis.call('HGET', KEYS[2], ARGV[8])
if not state or job_exists == 0 then return 'gone' end
local entry = redis.call('HGET', KEYS[1], 'entry')
if #redis.call('XRANGE', KEYS[7], entry, entry) == 0 then return 'trimmed' end
local attempts = cjson.decode(redis.call('HGET', KEYS[1], 'attempts') or '[]')
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local d = destination_read(ARGV[1], ARGV[2], now_ms, tonumber(ARGV[3]), tonumber(ARGV[4]))
if holder then
  redis.call('HSET', KEYS[1], 'replay', 1)
  return 'again'
end
local kept = math.min(#attempts, tonumber(ARGV[9]))
if kept < #attempts then
  redis.call('HSET', KEYS[1], 'attempts', cjson.encode({unpack(attempts, #attempts - kept + 1)}))
end
if state ~= 'pending' then
  local seq = string.match(redis.call('HGET', KEYS[1], 'seq') or '', '^%d+$') or '0'
  redis.call('ZREM', KEYS[4], ARGV[8])
  redis.call('ZREM', KEYS[5], ARGV[8])
  redis.call('ZADD', KEYS[6], seq, ARGV[8])
  redis.pcall('HINCRBY', KEYS[3], 'pending', 1)
  if redis.call('HGET', KEYS[3], 'gone_url') == redis.call('HGET', KEYS[1], 'url') then
    redis.call('HDEL', KEYS[3], 'gone_url')
  end
end
redis.call('HSET', KEYS[1], 'state', 'pending', 'schedule_from', kept, 'next_at_ms', now_ms)
redis.call('ZADD', d.waiting, now_ms, ARGV[8])
redis.call('HSET', d.state, 'name', ARGV[6], 'host', ARGV[7])
if d.failing then
  d.shut_until_ms = now_ms
  redis.call('HSET', d.state, 'shut_until_ms', now_ms, 'next_probe', ARGV[8])
end
destination_plan(d, now_ms, tonumber(ARGV[5]))
return 'again'
