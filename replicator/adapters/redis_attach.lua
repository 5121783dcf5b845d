-- Open a session under a lease epoch. KEYS[1]: meta, KEYS[2]: open batches. ARGV: fresh incarnation, epoch, keep_ms,
-- window_ms, attempt.
-- Answers {'ok', incarnation, batch, open batches dropped, watermark, 1 when new, ms for which what was settled last is
-- still remembered, number of the last settlement}, {'fenced', epoch} or {'late', why}.
local meta = redis.call('HMGET', KEYS[1], 'inc', 'ep', 'n', 'wm', 'at', 'st', 'try')
if not meta[1] then
  redis.call('HSET', KEYS[1], 'inc', ARGV[1], 'ep', ARGV[2], 'try', ARGV[5], 'n', 0, 'wm', '0', 'gens', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('DEL', KEYS[2])
  return {'ok', ARGV[1], '0', '0', '0', '1', '0', '0'}
end
if tonumber(ARGV[2]) < tonumber(meta[2]) then
  return {'fenced', meta[2]}
end
if ARGV[2] == meta[2] and tonumber(ARGV[5]) < tonumber(meta[7] or 0) then
  return {'late', 'a later session has begun'}
end
local open = redis.call('HLEN', KEYS[2])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'ep', ARGV[2], 'try', ARGV[5])
-- What was open is dropped: no batch up to here may be answered as settled any more.
if open > 0 then redis.call('HSET', KEYS[1], 'drop', meta[3]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local left = meta[5] and math.max(0, meta[5] + ARGV[4] - now) or 0
return {'ok', meta[1], meta[3], tostring(open), meta[4], '0', string.format('%d', left), meta[6] or '0'}
