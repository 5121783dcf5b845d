-- Claims and settlements, as many as came together, in their order; each has its own answer.
-- KEYS: for each its meta hash and its hash of open batches, all with one hash tag. ARGV: window_ms, keep_ms, then for
-- each: 'claim' or 'settle', incarnation, epoch, attempt, batch, claims or undone, prefix, watermark, and of a settlement
-- its number and the one after which it comes.
-- Bucket names are made here from the prefix: they carry the same hash tag as the keys, so all are in one slot; which
-- buckets are live is known only to the meta hash, so the caller can't declare them.
local window, keep = tonumber(ARGV[1]), ARGV[2]

-- Why a session may do nothing here any more, as an answer; nil where it may. held: its incarnation, epoch and attempt
-- as they stand in meta.
local function refused(held, incarnation, epoch, attempt)
  if not held[1] then return {'lost', 'there is no state'} end
  if held[1] ~= incarnation then return {'lost', 'the state is another incarnation'} end
  if tonumber(held[2]) > tonumber(epoch) then return {'fenced', held[2]} end
  if held[2] ~= epoch then return {'lost', 'the state is older than this session'} end
  if held[3] ~= attempt then return {'lost', 'the state is another session\'s'} end
end

-- Reserve one batch. A claim is 16 bytes of digest and 4 bytes of check.
-- Answers {'ok', verdicts}, {'lost', why} or {'fenced', epoch}.
local function claim(meta_key, open_key, incarnation, epoch, attempt, number, blob, prefix)
  local meta = redis.call('HMGET', meta_key, 'inc', 'ep', 'try', 'n', 'gens')
  local no = refused(meta, incarnation, epoch, attempt)
  if no then return no end
  local batch, last = tonumber(number), tonumber(meta[4])
  if batch == last then
    local stored = redis.call('HGET', open_key, number)
    if not stored or string.sub(stored, 1, #blob) ~= blob then return {'lost', 'the batch counter went another way'} end
    return {'ok', string.sub(stored, #blob + 1)}
  end
  if batch ~= last + 1 then return {'lost', 'the batch counter stands at ' .. meta[4]} end

  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  local live = {}
  local closed = nil
  for id, start, subs in string.gmatch(meta[5], '(%d+),(%d+),(%d+),%d+;') do
    -- Newest first: a generation was written to until the newer one began.
    if closed == nil or closed + window >= now then
      live[#live + 1] = {prefix .. id .. ':', tonumber(subs)}
    end
    closed = tonumber(start)
  end

  local verdicts = {}
  for at = 1, #blob, 20 do
    local digest, check = string.sub(blob, at, at + 15), string.sub(blob, at + 16, at + 19)
    local a, b = string.byte(digest, 1, 2)
    local place = a * 256 + b
    local verdict = 'n'
    for _, generation in ipairs(live) do
      local found = redis.call('HGET', generation[1] .. (place % generation[2]), digest)
      if found == check then
        verdict = 'd'
        break
      elseif found then
        verdict = 'c'
      end
    end
    if verdict == 'c' then
      for _, generation in ipairs(live) do
        if redis.call('HEXISTS', generation[1] .. (place % generation[2]), digest .. check) == 1 then verdict = 'd' end
      end
    end
    verdicts[#verdicts + 1] = verdict
  end
  local answer = table.concat(verdicts)
  redis.call('HSET', open_key, number, blob .. answer)
  redis.call('HSET', meta_key, 'n', number)
  return {'ok', answer}
end

-- Mark one batch done. undone: indices as '3,17,' (from 0). Answers {'ok'}, {'lost', why} or {'fenced', epoch}.
local function settle(meta_key, open_key, incarnation, epoch, attempt, number, undone_text, prefix, mark, turn, after)
  local meta = redis.call('HMGET', meta_key, 'inc', 'ep', 'try', 'n', 'wm', 'gens', 'drop', 'st')
  local no = refused(meta, incarnation, epoch, attempt)
  if no then return no end
  local settled = tonumber(meta[8] or 0)
  if settled < tonumber(after) then return {'lost', 'the settlements stand at ' .. settled} end
  settled = math.max(settled, tonumber(turn))
  local stored = redis.call('HGET', open_key, number)
  if not stored then
    if meta[7] and tonumber(meta[7]) >= tonumber(number) then return {'lost', 'the batch may have been dropped'} end
    if tonumber(meta[4]) < tonumber(number) then return {'lost', 'the batch counter stands at ' .. meta[4]} end
    redis.call('HSET', meta_key, 'st', settled)
    return {'ok'}
  end

  local count = #stored / 21
  local undone = {}
  for index in string.gmatch(undone_text, '(%d+),') do undone[tonumber(index)] = true end

  -- Generations, newest first, as 'id,start_ms,buckets,entries;'. A bucket must stay a small listpack: at most 90 entries.
  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  local FULL, MOST = 90, 16384
  local gens, closed = {}, nil
  for id, start, subs, entries in string.gmatch(meta[6], '(%d+),(%d+),(%d+),(%d+);') do
    if closed == nil or closed + window >= now then
      gens[#gens + 1] = {tonumber(id), tonumber(start), tonumber(subs), tonumber(entries)}
    end
    closed = tonumber(start)
  end
  local current = gens[1]
  local is_old = current and now - current[2] >= window / 2
  if not current or is_old or (current[4] + count > current[3] * FULL and current[3] < MOST) then
    local wanted = count / FULL
    if current then wanted = is_old and math.max(wanted, current[4] / FULL) or current[3] * 4 end
    local subs = 1
    while subs < wanted and subs < MOST do subs = subs * 2 end
    current = {(current and current[1] or 0) + 1, now, subs, 0}
    table.insert(gens, 1, current)
  end

  local bucket, expire_at = prefix .. current[1] .. ':', current[2] + math.floor(window * 1.5) + 1000
  local touched = {}
  for index = 0, count - 1 do
    local verdict = string.sub(stored, count * 20 + index + 1, count * 20 + index + 1)
    if verdict ~= 'd' and not undone[index] then
      local digest = string.sub(stored, index * 20 + 1, index * 20 + 16)
      local check = string.sub(stored, index * 20 + 17, index * 20 + 20)
      local a, b = string.byte(digest, 1, 2)
      local key = bucket .. ((a * 256 + b) % current[3])
      if redis.call('HSETNX', key, digest, check) == 0 and redis.call('HGET', key, digest) ~= check then
        redis.call('HSET', key, digest .. check, 1)
      end
      current[4] = current[4] + 1
      if not touched[key] then
        touched[key] = true
        if redis.call('PTTL', key) < 0 then redis.call('PEXPIREAT', key, expire_at) end
      end
    end
  end

  local texts = {}
  for _, gen in ipairs(gens) do
    texts[#texts + 1] = string.format('%d,%d,%d,%d;', gen[1], gen[2], gen[3], gen[4])
  end
  -- Sequence numbers have up to 129 digits: the longer is the greater, then text order decides.
  local watermark = meta[5]
  if #mark > #watermark or (#mark == #watermark and mark > watermark) then watermark = mark end
  redis.call('HSET', meta_key, 'gens', table.concat(texts), 'wm', watermark, 'at', now, 'st', settled)
  redis.call('HDEL', open_key, number)
  redis.call('PEXPIRE', meta_key, keep)
  return {'ok'}
end

local answers = {}
for index = 1, #KEYS / 2 do
  local at = 10 * (index - 1) + 3
  local op = ARGV[at] == 'claim' and claim or settle
  local meta_key, open_key = KEYS[2 * index - 1], KEYS[2 * index]
  local ok, answer = pcall(
    op, meta_key, open_key, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6],
    ARGV[at + 7], ARGV[at + 8], ARGV[at + 9])
  if not ok then answer = {'error', type(answer) == 'table' and answer.err or tostring(answer)} end
  answers[index] = answer
end
return answers
