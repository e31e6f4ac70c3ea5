-- Record an attempt of a delivery, what becomes of it, and what it says of its destination.
--
-- KEYS  1 delivery  2 leases of deliveries  3 job record  4 its timeline  5 index of its state before  6 index after
--       7 counters  (those of the destination: see destination)
-- ARGV  1 prefix of keys  2 destination  3 delivery id  4 token  5 new state  6 due (ms), '' where it is pending no more
--       7 attempts (JSON)  8 URL that wants no more of this job, or ''
--       9 'well' or 'ill': how its destination is; '' where nothing was learned
--       10 first gap and 11 longest gap (ms) between tries of a destination that fails  12 pause it has asked for (ms)
--       13 most at a time to a destination  14 for how long (ms) a due delivery waits for a destination that fails
--       15 line of the job's timeline, or ''  16... counters to raise: name, by how much
-- RETURNS  {'1' written, '0' the claim was another's or the delivery is gone; when there is more to be sent, '' for
--           never; 'failing' or 'recovered' where the destination has become so, else ''}
-- INVARIANT  the job's count of pending deliveries falls exactly when one leaves 'pending'.
-- include destination
local state = redis.call('HGET', KEYS[1], 'state')
local job_exists = redis.call('HEXISTS', KEYS[3], 'rev')
redis.call('LLEN', KEYS[4]); redis.call('ZCARD', KEYS[5]); redis.call('ZCARD', KEYS[6]); redis.call('HLEN', KEYS[7])
if not state or redis.call('HGET', KEYS[2], ARGV[3]) ~= ARGV[4] then return {'0', '', ''} end
local d = destination_read(ARGV[1], ARGV[2])
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local seq = redis.call('HGET', KEYS[1], 'seq')
redis.call('HDEL', KEYS[2], ARGV[3])
local is_handed_on = destination_done(d, ARGV[3])
if ARGV[6] == '' then
  redis.call('ZREM', d.waiting, ARGV[3])
  redis.call('HDEL', KEYS[1], 'next_at_ms')
else
  redis.call('ZADD', d.waiting, ARGV[6], ARGV[3])
  redis.call('HSET', KEYS[1], 'next_at_ms', ARGV[6])
end
redis.call('HSET', KEYS[1], 'state', ARGV[5], 'attempts', ARGV[7])
if state ~= ARGV[5] then
  redis.call('ZREM', KEYS[5], ARGV[3])
  redis.call('ZADD', KEYS[6], seq, ARGV[3])
  if job_exists == 1 and state == 'pending' then redis.pcall('HINCRBY', KEYS[3], 'pending', -1) end
end
if ARGV[8] ~= '' and job_exists == 1 then redis.call('HSET', KEYS[3], 'gone_url', ARGV[8]) end
if ARGV[15] ~= '' and job_exists == 1 then
  redis.call('RPUSH', KEYS[4], ARGV[15])
  redis.call('LTRIM', KEYS[4], -200, -1)
end
local news = destination_learn(d, now_ms, ARGV[3], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]))
local more_ms = destination_plan(d, now_ms, tonumber(ARGV[13]), tonumber(ARGV[14]))
if is_handed_on then more_ms = now_ms end
for i = 16, #ARGV, 2 do redis.pcall('HINCRBY', KEYS[7], ARGV[i], ARGV[i + 1]) end
return {'1', more_ms and string.format('%d', more_ms) or '', news}
