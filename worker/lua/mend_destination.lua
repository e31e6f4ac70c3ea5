-- Have a destination be looked at that has something to send and is on no wheel, or much later than it is due.
--
-- KEYS  1 counters  (those of the destination: see destination)
-- ARGV  1 prefix of keys  2 destination  3 most at a time to it  4 most to its host
--       5 for how long (ms) a due delivery waits for a destination that fails  6 how much later (ms) than due it may be
-- RETURNS  1 repaired, 0 in order, or called by others: while something is being sent, its end brings the destination on,
--          and one that queues for a place at its host is called
-- include destination
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local later_ms = tonumber(ARGV[6])
redis.call('HLEN', KEYS[1])
local d = destination_read(ARGV[1], ARGV[2], now_ms, tonumber(ARGV[3]), tonumber(ARGV[4]))
local first = tonumber(redis.call('ZRANGE', d.waiting, 0, 0, 'WITHSCORES')[2])
local lease_ends = tonumber(redis.call('ZRANGE', d.sending, 0, 0, 'WITHSCORES')[2])
if not first and not lease_ends then return 0 end
local planned = tonumber(redis.call('ZSCORE', d.wheel, d.id) or '')
if planned then
  local due_ms = lease_ends or (d.failing and math.max(first, d.shut_until_ms) or first)
  local latest_ms = math.max(due_ms, now_ms) + later_ms
  if redis.call('ZSCORE', d.queueing, d.id) then latest_ms = math.max(latest_ms, now_ms + 60000 + later_ms) end
  if planned <= latest_ms then return 0 end
end
redis.call('ZREM', d.wheel, '')  -- needs no memory, so that the rest is written however full Redis is
destination_plan(d, now_ms, tonumber(ARGV[5]))
redis.pcall('HINCRBY', KEYS[1], 'upkeep_repairs_total|destination', 1)
return 1
