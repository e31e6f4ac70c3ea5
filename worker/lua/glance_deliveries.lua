-- Look whether deliveries are plainly in order: sent, listed, and of a job that is there. Writes nothing.
--
-- ARGV  1 prefix of keys  2... ids of deliveries
-- RETURNS  the ids of those that are to be judged: all that are pending, and what is not plainly in order
-- COST  about 5 microseconds a delivery
local doubtful = {}
local function is_in_order(id)
  local state, seq, job = unpack(redis.call('HMGET', ARGV[1] .. ':delivery:' .. id, 'state', 'seq', 'job'))
  if not state then return true end
  return state ~= 'pending' and redis.call('ZSCORE', ARGV[1] .. ':deliveries:' .. state, id) == seq
    and redis.call('EXISTS', ARGV[1] .. ':job:' .. job) == 1
end
for i = 2, #ARGV do
  local fine, answer = pcall(is_in_order, ARGV[i])
  if not (fine and answer) then doubtful[#doubtful + 1] = ARGV[i] end
end
return doubtful
