-- Take a job off a list that it is on no longer: it is gone, or has ended.
--
-- KEYS  1 the list  2 job record
-- ARGV  1 job id  2 statuses in which it is not to be on it, between commas, '' where only a job that is gone is not
-- INVARIANT  a job that was opened again, or made anew, meanwhile stays on it.
local status = redis.call('HGET', KEYS[2], 'status')
if not status or string.find(ARGV[2], ',' .. status .. ',', 1, true) then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 1
