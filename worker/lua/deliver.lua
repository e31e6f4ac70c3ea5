-- Record an attempt of a delivery, what becomes of it, and what it says of its destination. Safe to repeat.
--
-- KEYS  1 delivery  2 leases of deliveries  3 job record  4 its timeline  5 index of its state before  6 index after
--       7 counters  8 ended jobs  (those of the destination: see destination)
-- ARGV  in the order of the take() calls below
-- RETURNS  {'1' written, '0' the claim was another's or the delivery is gone; when there is more to be sent, '' for
--           never; 'failing' or 'recovered' where the destination has become so, else ''; what the delivery's state is}
-- INVARIANT  the job's count of pending deliveries falls exactly when one leaves 'pending'. A replay that was asked for
--            meanwhile is heeded: what has not been taken is due at once, from the start of its schedule.
-- include destination
local at = 0
local function take() at = at + 1; return ARGV[at] end

local prefix, destination, most, most_at_host, patience_ms = take(), take(), tonumber(take()), tonumber(take()), tonumber(take())
local delivery, token, job_id = take(), take(), take()
local after, due_ms = take(), take()       -- the new state; '' where it is pending no more
local attempts, made = take(), take()      -- as JSON; how many those are
local gone_url = take()                    -- that wants no more of this job, or ''
local health = take()                      -- 'well' or 'ill': how the destination is; '' where nothing was learned
local first_gap_ms, longest_gap_ms, asked_ms = tonumber(take()), tonumber(take()), tonumber(take())
local note = take()                        -- a line of the job's timeline where the delivery is dead, or ''
local counted, dead_letters = take(), take()  -- counters to raise, or ''; the second where it is dead

local state = redis.call('HGET', KEYS[1], 'state')
local job_exists = redis.call('HEXISTS', KEYS[3], 'rev')
redis.call('LLEN', KEYS[4]); redis.call('HLEN', KEYS[7])
for _, i in ipairs({5, 6, 8}) do redis.call('ZCARD', KEYS[i]) end
if not state then return {'0', '', '', ''} end
if redis.call('HGET', KEYS[1], 'settled_by') == token then return {'1', '', '', state} end
if redis.call('HGET', KEYS[2], delivery) ~= token then return {'0', '', '', ''} end
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local d = destination_read(prefix, destination, now_ms, most, most_at_host)
local seq = string.match(redis.call('HGET', KEYS[1], 'seq') or '', '^%d+$') or '0'
local is_to_be_replayed = redis.call('HDEL', KEYS[1], 'replay') == 1 and after ~= 'delivered' and job_exists == 1
if is_to_be_replayed then
  after, due_ms, note, dead_letters = 'pending', now_ms, '', ''
  redis.call('HSET', KEYS[1], 'schedule_from', made)
end

redis.call('HDEL', KEYS[2], delivery)
destination_done(d, delivery)
if due_ms == '' then
  redis.call('ZREM', d.waiting, delivery)
  redis.call('HDEL', KEYS[1], 'next_at_ms')
else
  redis.call('ZADD', d.waiting, due_ms, delivery)
  redis.call('HSET', KEYS[1], 'next_at_ms', due_ms)
end
redis.call('HSET', KEYS[1], 'state', after, 'attempts', attempts, 'settled_by', token)
redis.call('HDEL', KEYS[1], 'crashes', 'deaths')
if state ~= after then
  redis.call('ZREM', KEYS[5], delivery)
  redis.call('ZADD', KEYS[6], seq, delivery)
  if job_exists == 1 and state == 'pending' then
    redis.pcall('HINCRBY', KEYS[3], 'pending', -1)
    redis.call('ZADD', KEYS[8], 'XX', 'GT', now_ms, job_id)  -- kept for as long from here
  end
end
if gone_url ~= '' and job_exists == 1 and not is_to_be_replayed then redis.call('HSET', KEYS[3], 'gone_url', gone_url) end
if note ~= '' and job_exists == 1 then
  redis.call('RPUSH', KEYS[4], note)
  redis.call('LTRIM', KEYS[4], -200, -1)
end
local news = destination_learn(d, now_ms, delivery, health, first_gap_ms, longest_gap_ms, asked_ms)
local more_ms = destination_plan(d, now_ms, patience_ms)
if d.has_called then more_ms = now_ms end
for _, counter in ipairs({counted, dead_letters}) do
  if counter ~= '' then redis.pcall('HINCRBY', KEYS[7], counter, 1) end
end
return {'1', more_ms and string.format('%d', more_ms) or '', news, after}
