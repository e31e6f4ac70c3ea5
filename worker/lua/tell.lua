-- Tell what became of a submission whose claim was lost meanwhile: the fleet learns from it all the same.
--
-- KEYS  1 gate  2 cooldowns  3 pace of the lane  4 its log  5 what it awaits
-- ARGV  1 what  2 model  3 '1' where its model is not at its quota  4 number  5 pause asked for (ms)  6 window (ms)
-- include pace
for i = 1, 5 do redis.call(i <= 3 and 'HLEN' or 'ZCARD', KEYS[i]) end
pace_tell(3, 1, 2, {what = ARGV[1], model = ARGV[2], lifts = ARGV[3], number = ARGV[4], pause_ms = ARGV[5],
  window_ms = ARGV[6]})
