-- Look whether deliveries are plainly in order, many at a time. Writes nothing, and doubts too much rather than too little.
--
-- ARGV  1 prefix of keys  2 lease (ms)  then for each delivery: its id, and its destination's where that is known, else ''
-- RETURNS  for each that is not plainly in order: its id, and where it is pending and its destination has to be known to
--          tell, its URL, else ''
-- COST  about 5 microseconds a delivery, 10 where it is pending
local prefix, lease_ms = ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function is_in_order(id, destination)
  local state, seq, job, url = unpack(redis.call('HMGET', prefix .. ':delivery:' .. id, 'state', 'seq', 'job', 'url'))
  if not state then return true end
  if redis.call('ZSCORE', prefix .. ':deliveries:' .. state, id) ~= seq then return false end
  local is_of_a_job = redis.call('EXISTS', prefix .. ':job:' .. job) == 1
  if state ~= 'pending' then return is_of_a_job end
  if destination == '' then return false, url end
  local sent_until_ms = redis.call('ZSCORE', prefix .. ':sending:' .. destination, id)
  if sent_until_ms and tonumber(sent_until_ms) > now_ms + 2 * lease_ms then return false end
  return (sent_until_ms or redis.call('ZSCORE', prefix .. ':waiting:' .. destination, id))
    and redis.call('HEXISTS', prefix .. ':destination:' .. destination, 'name') == 1
    and (not is_of_a_job or redis.call('LPOS', prefix .. ':deliveries-of:' .. job, id))
end

local doubtful = {}
for i = 3, #ARGV, 2 do
  local fine, answer, url = pcall(is_in_order, ARGV[i], ARGV[i + 1])
  if not (fine and answer) then
    doubtful[#doubtful + 1] = ARGV[i]
    doubtful[#doubtful + 1] = fine and url or ''
  end
end
return doubtful
