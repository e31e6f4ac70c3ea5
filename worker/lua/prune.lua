-- Delete one ended job that has been kept for long enough, with all that belongs to it.
--
-- KEYS  1 job record  2 input  3 timeline  4 ended jobs  5 index of its status  6 deliveries of job
--       7 track wheel  8 its leases  9 delivered  10 dead  11 index with its model  12... the job's deliveries
-- ARGV  1 job id  2 rev  3 how many attempts it has had  4... ids of the job's deliveries
-- RETURNS  1 deleted, 0 left alone: it has changed meanwhile; 2 put off: a delivery is pending, and when that is settled
--          the job is kept for as long as if it had ended then
-- INVARIANT  a job with a pending delivery is never deleted; neither is one that was opened again.
if redis.call('HGET', KEYS[1], 'rev') ~= ARGV[2] then return 0 end
for _, i in ipairs({4, 5, 7, 8, 9, 10, 11}) do redis.call(i == 8 and 'HLEN' or 'ZCARD', KEYS[i]) end
if (tonumber(redis.call('HGET', KEYS[1], 'pending') or '0') or 0) > 0 then
  local clock = redis.call('TIME')
  redis.call('ZREM', KEYS[4], '')  -- needs no memory, so that the rest is written however full Redis is
  redis.call('ZADD', KEYS[4], 'XX', clock[1] * 1000 + math.floor(clock[2] / 1000), ARGV[1])
  return 2
end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[11], ARGV[1])
for number = 1, tonumber(ARGV[3]) do
  redis.call('ZREM', KEYS[7], number .. ':' .. ARGV[1])
  redis.call('HDEL', KEYS[8], number .. ':' .. ARGV[1])
end
for i = 4, #ARGV do
  redis.call('ZREM', KEYS[9], ARGV[i])
  redis.call('ZREM', KEYS[10], ARGV[i])
  redis.call('DEL', KEYS[8 + i])
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[6])
return 1
