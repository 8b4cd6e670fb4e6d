-- Protocol fields ---------------------------------------------------------------------------------------------------

local UINT_FIELDS = { ProtoField.uint8, ProtoField.uint16, nil, ProtoField.uint32, nil, nil, nil, ProtoField.uint64 }
local BOOLEAN_WORDS = { [0] = "no", [1] = "yes" }

local function value_strings(codes)
  local names = {}
  for number, code in pairs(CODES[codes]) do
    names[number] = code.name
  end
  return names
end

local function shown_field(abbreviation, f)
  local codes = f.words or f.codes
  local words = codes and value_strings(codes)
  if f.is == "uint" or f.is == "choice" then
    return UINT_FIELDS[f.width](abbreviation, f.name, f.hex and base.HEX or base.DEC, words, nil, f.doc)
  elseif f.is == "boolean" then
    return ProtoField.uint8(abbreviation, f.name, base.DEC, BOOLEAN_WORDS, nil, f.doc)
  elseif f.is == "text" then
    return ProtoField.string(abbreviation, f.name, base.UNICODE, f.doc)
  elseif f.is == "nested" then
    return ProtoField.none(abbreviation, f.name, f.doc)
  elseif f.is == "opaque" or f.is == "blob" then
    return ProtoField.bytes(abbreviation, f.name, base.NONE, f.doc)
  end
  error("no protocol field for " .. f.is)
end

local fields = {}

for record_name, record in pairs(RECORDS) do
  record.proto = ProtoField.none("paygate." .. record_name, record.name, record.meaning)
  table.insert(fields, record.proto)
  for _, f in ipairs(record.fields) do
    local abbreviation = "paygate." .. record_name .. "." .. f.name
    if f.shows ~= "PUBLIC" then
      -- Its value is a text of ours, never the bytes.
      f.proto = ProtoField.string(abbreviation, f.name, base.NONE, f.doc)
    elseif f.is == "list" then
      f.item.name, f.item.doc, f.item.shows = f.name, f.doc, f.shows
      f.proto_count = ProtoField.uint8(abbreviation .. "_count", f.name .. " count", base.DEC, nil, nil, f.doc)
      f.proto = shown_field(abbreviation, f.item)
      f.item.proto = f.proto
      table.insert(fields, f.proto_count)
    else
      f.proto = shown_field(abbreviation, f)
    end
    table.insert(fields, f.proto)
  end
end

local MAC = ProtoField.bytes("paygate.mac", "mac", base.NONE, "HMAC-SHA-256 over header and body; not verified here")
local REQUEST_IN = ProtoField.framenum("paygate.request_in", "request in", base.NONE, frametype.REQUEST)
local REPLY_IN = ProtoField.framenum("paygate.reply_in", "reply in", base.NONE, frametype.RESPONSE)
table.insert(fields, MAC)
table.insert(fields, REQUEST_IN)
table.insert(fields, REPLY_IN)
paygate.fields = fields

local experts = {}
local FAULTS = {}
for name, meaning in pairs(FAULT_MEANINGS) do
  local group = name == "BAD_CHECKSUM" and expert.group.CHECKSUM or expert.group.MALFORMED
  FAULTS[name] = ProtoExpert.new("paygate.expert." .. name:lower(), meaning, group, expert.severity.ERROR)
  table.insert(experts, FAULTS[name])
end
local ERROR_FRAME = ProtoExpert.new("paygate.expert.error_frame", "the sender refused something",
  expert.group.RESPONSE_CODE, expert.severity.NOTE)
local NOT_THE_RECORD = ProtoExpert.new("paygate.expert.not_the_record", "a blob is not exactly one record",
  expert.group.PROTOCOL, expert.severity.WARN)
table.insert(experts, ERROR_FRAME)
table.insert(experts, NOT_THE_RECORD)
paygate.experts = experts

-- Preferences -------------------------------------------------------------------------------------------------------

paygate.prefs.ports = Pref.range("TCP ports", PORTS, "Ports on which gateways and banks listen", 65535)
paygate.prefs.shows_damaged = Pref.bool("Show bodies whose checksum is wrong", false,
  "In a damaged body a secret may stand where a public field belongs")

-- Drawing: items to Wireshark's tree --------------------------------------------------------------------------------

local draw_items

local function whole_bytes(count)
  return count == 1 and "1 byte" or string.format("%d bytes", count)
end

-- Marks a tree item; the text never holds a received value.
local function mark(node, found)
  local at = found.path ~= "" and found.path .. ": " or ""
  node:add_proto_expert_info(FAULTS[found.code], at .. "expected " .. found.expected)
end

local function draw_unplaced(tree, tvb, item)
  local what = item.field.name .. ": <" .. whole_bytes(item.size) .. ", not dissected>"
  return item.size > 0 and tree:add(tvb(item.at, item.size), what) or tree
end

local function draw_masked(tree, tvb, item)
  local f, range = item.field, tvb(item.at, item.size)
  if f.shows ~= "SIZED" then
    return tree:add(f.proto, range, "<secret>")
  end
  local size = f.prefix and item.size - f.prefix or item.size
  local node = tree:add(f.proto, range, "<" .. whole_bytes(size) .. ">")
  if f.holds and size > 0 then
    local raw = tvb:raw(item.at, item.size)
    local items, ends, found = scan_record(f.holds, raw, f.prefix, #raw, "")
    if found or ends ~= #raw then
      node:add_proto_expert_info(NOT_THE_RECORD, f.name .. ": expected exactly one " .. RECORDS[f.holds].name)
    else
      draw_items(node, tvb(item.at, item.size):tvb(), items)
    end
  end
  return node
end

local function time_words(milliseconds)
  return os.date("!%Y-%m-%dT%H:%M:%S", math.floor(milliseconds / 1000))
    .. string.format(".%03dZ", milliseconds % 1000)
end

local function draw_public(tree, tvb, item)
  local f, range = item.field, tvb(item.at, item.size)
  if f.is == "nested" then
    local node = tree:add(f.proto, range)
    draw_items(node, tvb, item.items)
    return node
  elseif f.is == "list" then
    local node = tree:add(f.proto_count, tvb(item.at, f.prefix))
    draw_items(tree, tvb, item.items)
    return node
  elseif f.is == "text" then
    -- An illegal text may hold what belongs to the next field.
    local text = item.fault and "<" .. whole_bytes(item.size - f.prefix) .. ", not legal>" or item.content
    return tree:add(f.proto, range, text)
  elseif f.is == "blob" then
    return tree:add(f.proto, tvb(item.at + f.prefix, item.size - f.prefix))
  end
  local node = tree:add(f.proto, range)
  local code = f.codes and CODES[f.codes][item.number]
  if code then
    node:append_text(": " .. code.meaning)
  elseif f.unit and not item.fault then
    node:append_text(f.is_time and " (" .. time_words(item.number) .. ")" or " " .. f.unit)
  end
  return node
end

function draw_items(tree, tvb, items)
  for _, item in ipairs(items) do
    local f, node = item.field, nil
    if not item.ends and not item.items then
      node = draw_unplaced(tree, tvb, item)
    elseif f.shows == "PUBLIC" then
      node = draw_public(tree, tvb, item)
    else
      node = draw_masked(tree, tvb, item)
    end
    -- What is made of others is not at fault itself: they were marked.
    if item.fault and not item.items then
      mark(node, item.fault)
    end
  end
end

-- Requests and replies ----------------------------------------------------------------------------------------------

local waiting = {} -- by direction and correlation ID: the request's packet and kind
local matched = {} -- by packet, kind, direction and correlation ID: the packet of the other one

function paygate.init()
  waiting, matched = {}, {}
end

local function direction(from, from_port, to, to_port, correlation)
  return table.concat({ tostring(from), from_port, tostring(to), to_port, correlation }, " ")
end

local function match(tree, pinfo, kind, correlation)
  local sent = direction(pinfo.src, pinfo.src_port, pinfo.dst, pinfo.dst_port, correlation)
  local answered = direction(pinfo.dst, pinfo.dst_port, pinfo.src, pinfo.src_port, correlation)
  local here = pinfo.number .. " " .. kind .. " "
  if not pinfo.visited then
    local request = waiting[answered]
    if KINDS[kind].reply then
      waiting[sent] = { number = pinfo.number, kind = kind }
    elseif request and (KINDS[request.kind].reply == kind or kind == ERROR_KIND) then
      matched[here .. sent] = request.number
      matched[request.number .. " " .. request.kind .. " " .. answered] = pinfo.number
      waiting[answered] = nil
    end
  end
  local other = matched[here .. sent]
  if other then
    tree:add(KINDS[kind].reply and REPLY_IN or REQUEST_IN, other):set_generated()
  end
end

-- Frames ------------------------------------------------------------------------------------------------------------

-- What a header says, checked in the order of the error codes.
local function read_head(raw)
  local items = scan_record("header", raw, 0, HEADER_SIZE, "")
  local head = { items = items }
  for _, item in ipairs(items) do
    head[item.field.name] = item.number
  end
  if head.magic ~= MAGIC then
    return fault(head, "BAD_MAGIC", "magic", "the letters PG")
  end
  if head.version ~= VERSION then
    return fault(head, "UNSUPPORTED_VERSION", "version", tostring(VERSION))
  end
  local is_authenticated = head.flags % 2 == 1
  head.size = math.floor(HEADER_SIZE + head.body_size + (is_authenticated and MAC_SIZE or 0))
  head.kind, head.body_size = math.floor(head.kind), math.floor(head.body_size)
  local kind = KINDS[head.kind]
  if not kind then
    return fault(head, "UNKNOWN_KIND", "kind", "a kind of spec section 4.2")
  end
  if head.flags > FLAG_AUTHENTICATED then
    return fault(head, "UNKNOWN_FLAG", "flags", "no flag but AUTHENTICATED")
  end
  if head.body_size < kind.size_min then
    return fault(head, "BODY_TOO_SMALL", "body_size", "at least " .. kind.size_min .. " for " .. kind.name)
  end
  if head.body_size > kind.size_max then
    return fault(head, "BODY_TOO_LARGE", "body_size", "at most " .. kind.size_max .. " for " .. kind.name)
  end
  return head
end

local function draw_header(tree, tvb, head, checksum)
  local node = tree:add(RECORDS.header.proto, tvb(0, HEADER_SIZE))
  for _, item in ipairs(head.items) do
    local f = item.field
    local drawn = node:add(f.proto, tvb(item.at, item.size))
    if f.name == "flags" and head.flags % 2 == 1 then
      drawn:append_text(": AUTHENTICATED")
    elseif f.name == "kind" and KINDS[head.kind] then
      drawn:append_text(": " .. KINDS[head.kind].meaning)
    elseif f.name == "checksum" and checksum then
      local is_right = checksum == head.checksum
      drawn:append_text(is_right and ": right" or string.format(": wrong, it should be 0x%08x", checksum))
      if not is_right then
        mark(drawn, { code = "BAD_CHECKSUM", path = "checksum", expected = "the CRC-32 of header and body" })
      end
    end
    if head.fault and head.fault.path == f.name then
      mark(drawn, head.fault)
    end
  end
end

local function draw_error(tree, items)
  local code, closes = items[1], items[2]
  local known = code and CODES.error_code[code.number]
  if known and closes then
    local ending = closes.number == 1 and "; the sender closes the link" or ""
    tree:add_proto_expert_info(ERROR_FRAME, known.name .. ": " .. known.meaning .. ending)
  end
end

-- Draws the message and returns what the info column says of it: its codes, which are never secrets.
local function draw_body(tree, tvb, head)
  local kind, stop = KINDS[head.kind], HEADER_SIZE + head.body_size
  local items, ends, found = scan_record(kind.record, tvb:raw(0, stop), HEADER_SIZE, stop, "")
  local node = tree:add(RECORDS[kind.record].proto, tvb(HEADER_SIZE, head.body_size))
  draw_items(node, tvb, items)
  if ends and ends < stop and not found then
    local rest = node:add(tvb(ends, stop - ends), "<" .. whole_bytes(stop - ends) .. " left over>")
    mark(rest, { code = "TRAILING_BYTES", path = "", expected = "the end of a " .. kind.name })
  end
  if head.kind == ERROR_KIND then
    draw_error(node, items)
  end
  local words = {}
  for _, item in ipairs(items) do
    local f = item.field
    if f.is == "choice" and f.shows == "PUBLIC" and item.number and not item.fault then
      table.insert(words, f.name .. "=" .. CODES[f.codes][item.number].name)
    end
  end
  if found or ends ~= stop then
    table.insert(words, "[malformed]")
  end
  return table.concat(words, " ")
end

local function draw_hidden(tree, tvb, at, size, why)
  if size > 0 then
    tree:add(tvb(at, size), "<" .. whole_bytes(size) .. ", not dissected: " .. why .. ">")
  end
end

-- One frame; `tvb` holds it whole, or what there is of it if its header is refused or the capture cut it.
local function dissect_frame(tvb, pinfo, tree)
  local size = tvb:len()
  local top = tree:add(paygate, tvb())
  local function says(words)
    pinfo.cols.info:append(words .. "  ")
    pinfo.cols.info:fence()
    top:append_text(", " .. words)
  end
  local head = read_head(tvb:raw(0, HEADER_SIZE))
  local known = KINDS[head.kind]
  local name = known and known.name or "frame"
  if head.fault then
    draw_header(top, tvb, head, nil)
    draw_hidden(top, tvb, HEADER_SIZE, size - HEADER_SIZE, "no receiver reads on after such a header")
    says(name .. " [" .. head.fault.code .. "]")
    return size
  end
  local correlation = string.format("0x%08x%08x", tvb(8, 4):uint(), tvb(12, 4):uint())
  if size < head.size then
    draw_header(top, tvb, head, nil)
    draw_hidden(top, tvb, HEADER_SIZE, size - HEADER_SIZE, "the capture does not hold the whole frame")
    says(name .. " " .. correlation .. " [cut short in the capture]")
    return size
  end
  local stop = HEADER_SIZE + head.body_size
  local checksum = crc32(tvb:raw(0, HEADER_SIZE - 4) .. tvb:raw(HEADER_SIZE, head.body_size))
  draw_header(top, tvb, head, checksum)
  match(top, pinfo, head.kind, correlation)
  local words
  if checksum == head.checksum or paygate.prefs.shows_damaged then
    words = draw_body(top, tvb, head)
  else
    draw_hidden(top, tvb, HEADER_SIZE, head.body_size, "its checksum is wrong")
    words = "[BAD_CHECKSUM]"
  end
  if size > stop then
    top:add(MAC, tvb(stop, MAC_SIZE)):append_text(" (not verified)")
  end
  says(name .. " " .. correlation .. (words ~= "" and " " .. words or ""))
  return size
end

-- How many bytes make the next frame. After a header that every receiver refuses nothing in the stream can be placed,
-- so no further segment is awaited.
local function frame_size(tvb, _, at)
  local left = tvb:len() - at
  if left < HEADER_SIZE then
    return HEADER_SIZE
  end
  local head = read_head(tvb:raw(at, HEADER_SIZE))
  return head.fault and math.min(head.size or left, left) or head.size
end

function paygate.dissector(tvb, pinfo, tree)
  pinfo.cols.protocol = "paygate"
  pinfo.cols.info = ""
  dissect_tcp_pdus(tvb, tree, HEADER_SIZE, frame_size, dissect_frame)
  return tvb:len()
end

-- Where to look -----------------------------------------------------------------------------------------------------

-- On any port: a whole header that no check refuses is 8 bytes of evidence, and never text.
local function find_paygate(tvb, pinfo, tree)
  if tvb:len() < HEADER_SIZE or read_head(tvb:raw(0, HEADER_SIZE)).fault then
    return false
  end
  pinfo.conversation = paygate
  paygate.dissector(tvb, pinfo, tree)
  return true
end

local tcp_ports = DissectorTable.get("tcp.port")
local registered_ports = paygate.prefs.ports

function paygate.prefs_changed()
  if registered_ports ~= paygate.prefs.ports then
    tcp_ports:remove(registered_ports, paygate)
    registered_ports = paygate.prefs.ports
    tcp_ports:add(registered_ports, paygate)
  end
end

tcp_ports:add(registered_ports, paygate)
paygate:register_heuristic("tcp", find_paygate)
