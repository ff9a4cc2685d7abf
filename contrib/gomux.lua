-- A Wireshark dissector for the gomux v1 wire, in compatible and in strict mode.
-- Copyright (c) The gomux for Twisted authors.
-- See LICENSE for details.
--
-- Only the header of a frame is in the clear: id, length, flags and nonce.  All payloads
-- are sealed, and this file has no key.  docs/protocol.rst and docs/strict.rst describe
-- the wire; docs/howto/debugging.rst has examples.
--
--     tshark -X lua_script:gomux.lua -r capture.pcapng -Y 'gomux.stream == 4'
--
-- Needs Wireshark 3.0 or newer: it uses nothing that differs between Lua 5.2 and 5.4.

local gomux = Proto("gomux", "gomux stream multiplexer")

-- The numbers of docs/protocol.rst.
local FIELDS = 12 -- the size of id, length and flags
local PREFIX = 16 -- the size of a nonce without its counter
local HEADER = 36
local TAG = 16
local MAX_LENGTH = 65536
local MAX_CREDIT = 131072 -- in one WindowUpdate of the Go package
local HELLO_SIZE = 60
local NO_PING = 4294967295 -- acknowledges nothing

local DATA, KEEPALIVE, OPEN_STREAM, WINDOW_UPDATE, CLOSE_MUX = 0, 1, 2, 6, 7

local names = {
    [0] = "Data",
    [1] = "Keepalive",
    [2] = "OpenStream",
    [3] = "CloseRead",
    [4] = "CloseWrite",
    [5] = "CloseStream",
    [6] = "WindowUpdate",
    [7] = "CloseMux",
}

local fields = {
    id = ProtoField.uint32("gomux.id", "ID", base.DEC),
    stream = ProtoField.uint32(
        "gomux.stream", "Stream", base.DEC, nil, nil, "The id, in a frame about a stream"
    ),
    length = ProtoField.uint32("gomux.length", "Length", base.DEC),
    flags = ProtoField.uint32("gomux.flags", "Flags", base.DEC, names),
    kind = ProtoField.string(
        "gomux.kind", "Kind", base.ASCII, "The name of the flags, or Greeting, Ping,"
            .. " Hello, Confirmation, Request or Abort"
    ),
    nonce = ProtoField.bytes("gomux.nonce", "Nonce"),
    prefix = ProtoField.bytes("gomux.nonce.prefix", "Prefix"),
    counter = ProtoField.uint64("gomux.nonce.counter", "Counter", base.DEC),
    credit = ProtoField.uint32("gomux.credit", "Credit in bytes", base.DEC),
    acknowledged = ProtoField.uint32(
        "gomux.acknowledged", "Acknowledged counter", base.DEC
    ),
    announced = ProtoField.uint32("gomux.announced", "Announced bits", base.HEX),
    version = ProtoField.uint8("gomux.version", "Version of strict mode", base.DEC),
    sealed = ProtoField.bytes("gomux.sealed", "Sealed payload"),
    tag = ProtoField.bytes("gomux.tag", "Tag"),
    unknown = ProtoField.bytes("gomux.unknown", "Not a frame"),
}
gomux.fields = fields

local experts = {
    unknown = ProtoExpert.new(
        "gomux.expert.unknown",
        "No frame begins here: its length or flags are impossible. Either the capture"
            .. " lacks bytes before this, or this is not gomux",
        expert.group.MALFORMED,
        expert.severity.ERROR
    ),
    cut = ProtoExpert.new(
        "gomux.expert.cut",
        "The rest of this frame was not captured",
        expert.group.UNDECODED,
        expert.severity.NOTE
    ),
    credit = ProtoExpert.new(
        "gomux.expert.credit",
        "More credit than a Go peer accepts in one frame",
        expert.group.PROTOCOL,
        expert.severity.WARN
    ),
    sequence = ProtoExpert.new(
        "gomux.expert.sequence",
        "Not the nonce that is due: the receiver ends the mux, unless the capture lacks"
            .. " frames before this one",
        expert.group.SEQUENCE,
        expert.severity.WARN
    ),
}
gomux.experts = experts

gomux.prefs.ports = Pref.range(
    "TCP ports",
    "7000",
    "The ports on which muxes are accepted. A mux of this software is also found on any"
        .. " other port, if the capture has its first frame.",
    65535
)

local tcpStream = Field.new("tcp.stream")

-- The connections by their number, and in each the two directions by their source.
-- `client` is the source of the first frame of a connection.
--
-- A direction has:
--   started   whether a frame was seen
--   greets    whether its first frame was a greeting that announces bit 0; nil if the
--             capture lacks its first frame
--   strict    whether its first frame was a hello
--   prefix    the prefix that all its frames must have, if it is bound
--   due       the counter of its next frame, if it is bound
--   special   the kinds of single frames, by their headers, which no two frames share
--   broken    the headers of frames whose nonce was not due
local connections = {}

function gomux.init()
    connections = {}
end

-- Returns the direction of a packet, and the direction against it.
local function directions(pinfo)
    local number = tcpStream()
    local key = number and number.value or -1
    local connection = connections[key]
    if connection == nil then
        connection = {}
        connections[key] = connection
    end
    local ends = {
        tostring(pinfo.src) .. " " .. tostring(pinfo.src_port),
        tostring(pinfo.dst) .. " " .. tostring(pinfo.dst_port),
    }
    for _, name in ipairs(ends) do
        if connection[name] == nil then
            connection[name] = { special = {}, broken = {} }
        end
    end
    if connection.client == nil then
        connection.client = connection[ends[1]]
    end
    return connection[ends[1]], connection[ends[2]], connection
end

-- Returns whether a frame can have this length and flags.
local function isPossible(length, flags)
    if flags > CLOSE_MUX then
        return false
    end
    return length <= MAX_LENGTH or (flags == WINDOW_UPDATE and length <= MAX_CREDIT)
end

-- Returns whether a header can begin at an offset.
local function canBegin(tvb, offset)
    if tvb:len() - offset < FIELDS then
        return false
    end
    return isPossible(tvb(offset + 4, 4):le_uint(), tvb(offset + 8, 4):le_uint())
end

-- Finds where a header can begin after bytes that are no frame; nil if nowhere.
local function findHeader(tvb, offset)
    local bytes = tvb:raw(offset, tvb:len() - offset)
    -- Begin at the flags: most bytes are random, and these are mostly zeros.
    local at = string.find(bytes, "[\0-\7]\0\0\0", 9)
    while at ~= nil do
        local found = offset + at - 9
        if canBegin(tvb, found) then
            -- A header can also seem to begin in the bytes before it, because it has
            -- many zeros.  So the last one counts: the nonce has few zeros.
            for later = found + 1, found + 8 do
                found = canBegin(tvb, later) and later or found
            end
            return found
        end
        at = string.find(bytes, "[\0-\7]\0\0\0", at + 1)
    end
    return nil
end

-- Returns whether a header is that of a hello, of any version, if it is the first.
local function isHello(header)
    return header.id % 16777216 == 0x584D47
        and header.flags == DATA
        and header.length == HELLO_SIZE
end

local function isGreeting(header)
    return header.flags == KEEPALIVE and header.id == 0 and header.length > 0
end

-- Updates a direction with its next frame.
local function follow(connection, direction, header)
    if not direction.started then
        direction.started = true
        if isHello(header) then
            direction.strict = true
            direction.special[header.raw] = "Hello"
            direction.prefix, direction.due = header.prefix, UInt64(0)
            return
        elseif isGreeting(header) then
            direction.special[header.raw] = "Greeting"
            direction.greets = header.length % 2 == 1
            if direction.greets then
                direction.prefix, direction.due = header.prefix, header.counter + 1
            end
            return
        end
        -- This software counts from 0, and the Go package has random nonces.
        if header.counter == UInt64(0) or header.counter:higher() ~= 0 then
            direction.greets = false
        end
    end
    if direction.due == nil then
        return
    end
    local isLast = header.counter == UInt64(NO_PING, NO_PING) -- a CloseMux
    if header.prefix ~= direction.prefix then
        direction.broken[header.raw] = true
        return
    elseif header.counter ~= direction.due and not isLast then
        direction.broken[header.raw] = true
    elseif
        direction.strict
        and direction == connection.client
        and header.counter == UInt64(0)
    then
        direction.special[header.raw] = "Confirmation"
    end
    direction.due = header.counter + 1
end

-- Returns the kind of a frame.
local function kindOf(direction, against, header)
    local special = direction.special[header.raw]
    if special ~= nil then
        return special
    elseif header.flags == KEEPALIVE then
        local isBoth = direction.greets and against.greets
        if header.length == 0 and (isBoth or direction.strict) then
            return "Ping"
        end
    elseif header.flags == OPEN_STREAM and header.length == 1 then
        return "Request"
    elseif header.flags == WINDOW_UPDATE and header.length == 0 then
        return "Abort"
    end
    return names[header.flags]
end

-- What the tree says about a kind, and what the list of packets says.
local meanings = {
    Request = "the stream begins with a request, which is sealed",
    Abort = "the sender aborts the stream: data may be missing",
    CloseRead = "the sender has finished writing",
    CloseWrite = "the sender does not want to read any more",
    CloseStream = "both halves end",
    CloseMux = "the sender closes the mux and all streams",
    Confirmation = "the mux is up",
}
local short = { Request = "OpenStream", Abort = "Abort of stream" }

-- Returns whether a frame is about a stream.
local function isAboutStream(kind, flags)
    return kind ~= "Hello" and flags ~= KEEPALIVE and flags ~= CLOSE_MUX
end

local function summary(kind, header)
    if kind == "Hello" then
        return "Hello of strict mode"
    elseif kind == "Greeting" then
        return string.format("Greeting (bits 0x%x)", header.length)
    elseif kind == "Ping" and header.id ~= NO_PING then
        return string.format("Ping (%d came last)", header.id)
    elseif not isAboutStream(kind, header.flags) then
        return kind
    end
    local text = string.format("%s %d", short[kind] or kind, header.id)
    if kind == "Request" then
        return text .. " with a request"
    elseif kind == "Data" or kind == "WindowUpdate" then
        return string.format("%s (%d bytes)", text, header.length)
    end
    return text
end

-- Reads the header at an offset.
local function readHeader(tvb, offset)
    return {
        raw = tvb:raw(offset, HEADER),
        id = tvb(offset, 4):le_uint(),
        length = tvb(offset + 4, 4):le_uint(),
        flags = tvb(offset + 8, 4):le_uint(),
        prefix = tvb:raw(offset + FIELDS, PREFIX),
        counter = tvb(offset + FIELDS + PREFIX, 8):le_uint64(),
    }
end

-- Adds the items of a frame.  `size` is how many bytes of it were captured.
local function addFrame(tree, tvb, offset, size, kind, header, direction)
    local isUnknown = direction.greets == nil and not direction.strict
    local item = tree:add(gomux, tvb(offset, size))
    item:set_text("gomux, " .. summary(kind, header))
    if meanings[kind] ~= nil then
        item:append_text(": " .. meanings[kind])
    elseif kind == "Keepalive" and isUnknown then
        item:append_text(": perhaps a ping, but the capture lacks the first frames")
    end
    local id = tvb(offset, 4)
    local length = tvb(offset + 4, 4)
    item:add_le(fields.id, id)
    if isAboutStream(kind, header.flags) then
        item:add_le(fields.stream, id)
    end
    item:add_le(fields.length, length)
    item:add_le(fields.flags, tvb(offset + 8, 4))
    item:add(fields.kind, kind):set_generated()
    if kind == "Ping" then
        item:add_le(fields.acknowledged, id)
    elseif kind == "Greeting" then
        item:add_le(fields.announced, length)
    elseif kind == "Hello" then
        item:add(fields.version, tvb(offset + 3, 1))
    elseif header.flags == WINDOW_UPDATE then
        item:add_le(fields.credit, length)
        if header.length > MAX_LENGTH then
            item:add_proto_expert_info(experts.credit)
        end
    end
    local nonce = item:add(fields.nonce, tvb(offset + FIELDS, HEADER - FIELDS))
    nonce:add(fields.prefix, tvb(offset + FIELDS, PREFIX))
    nonce:add_le(fields.counter, tvb(offset + FIELDS + PREFIX, 8))
    if direction.broken[header.raw] then
        nonce:add_proto_expert_info(experts.sequence)
    end
    local payload = header.flags == DATA and header.length or 0
    local there = math.min(payload, size - HEADER)
    if there > 0 then
        item:add(fields.sealed, tvb(offset + HEADER, there))
    end
    if size == HEADER + payload + TAG then
        item:add(fields.tag, tvb(offset + HEADER + payload, TAG))
    else
        item:add_proto_expert_info(experts.cut)
    end
end

local function addUnknown(tree, tvb, offset, size)
    local item = tree:add(gomux, tvb(offset, size))
    item:set_text("gomux, not a frame")
    item:add(fields.unknown, tvb(offset, size))
    item:add_proto_expert_info(experts.unknown)
end

-- Asks for more bytes.  Returns whether they will come.
local function await(pinfo, tvb, offset, missing)
    if pinfo.can_desegment == 0 or tvb:len() < tvb:reported_len() then
        return false
    end
    pinfo.desegment_offset = offset
    pinfo.desegment_len = missing
    return true
end

function gomux.dissector(tvb, pinfo, tree)
    local size = tvb:len()
    local direction, against, connection = directions(pinfo)
    pinfo.cols.protocol = "gomux"
    pinfo.cols.info:clear()
    local offset, told = 0, {}
    while offset < size do
        local left = size - offset
        if left < FIELDS and await(pinfo, tvb, offset, DESEGMENT_ONE_MORE_SEGMENT) then
            break
        elseif not canBegin(tvb, offset) then
            local found = findHeader(tvb, offset) or size
            addUnknown(tree, tvb, offset, found - offset)
            table.insert(told, "[not a frame]")
            offset = found
        elseif left < HEADER then
            if not await(pinfo, tvb, offset, DESEGMENT_ONE_MORE_SEGMENT) then
                addUnknown(tree, tvb, offset, left)
            end
            break
        else
            local header = readHeader(tvb, offset)
            local payload = header.flags == DATA and header.length or 0
            local whole = HEADER + payload + TAG
            if left < whole and await(pinfo, tvb, offset, whole - left) then
                break
            end
            if not pinfo.visited then
                follow(connection, direction, header)
            end
            local kind = kindOf(direction, against, header)
            local here = math.min(left, whole)
            addFrame(tree, tvb, offset, here, kind, header, direction)
            table.insert(told, summary(kind, header))
            offset = offset + here
        end
    end
    pinfo.cols.info:append(table.concat(told, ", "))
    pinfo.cols.info:fence()
    return size
end

-- Finds muxes of this software on any port, by the 20 fixed bytes of their first frame.
-- Muxes of a Go peer have no such bytes.
local function recognize(tvb, pinfo, tree)
    if tvb:len() < HEADER then
        return false
    end
    local header = readHeader(tvb, 0)
    if header.counter ~= UInt64(0) or not (isHello(header) or isGreeting(header)) then
        return false
    end
    gomux.dissector(tvb, pinfo, tree)
    pinfo.conversation = gomux
    return true
end

local ports = DissectorTable.get("tcp.port")
local registered = ""

local function register()
    if registered ~= gomux.prefs.ports then
        if registered ~= "" then
            ports:remove(registered, gomux)
        end
        registered = gomux.prefs.ports
        if registered ~= "" then
            ports:add(registered, gomux)
        end
    end
end

register()
gomux.prefs_changed = register
gomux:register_heuristic("tcp", recognize)
