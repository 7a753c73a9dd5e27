# Reads NoCloud meta-data, vendor-data and user-data. Prints one setting per line ("host web-1", "user me",
# "instance vm_1", "key ssh-ed25519 ...") and writes the runcmd list as a script to the file named by `run`.
# Not a YAML parser: it knows the simple forms README.md names and steps over everything else.

FNR == 1 {
    sub(/\r$/, "")
    readable = FILENAME ~ /meta-data$/ || /^#cloud-config/
    list = top = ""
    users = block = 0
}
!readable { next }
{ sub(/\r$/, "") }

# A block scalar of runcmd ("- |"): its lines as they are, until the indentation ends.
block {
    match($0, /^ */)
    if ($0 ~ /^ *$/ || RLENGTH > block_indent) {
        print > run
        next
    }
    block = 0
}
/^[ \t]*(#|$)/ || /^---/ { next }
{
    match($0, /^ */)
    indent = RLENGTH
    line = substr($0, indent + 1)
    is_item = line ~ /^- /
    if (is_item) sub(/^- +/, "", line)

    if (is_item && list != "" && indent >= list_indent) {
        item(list, line)
        next
    }
    list = ""
    if (!match(line, /^["']?[A-Za-z0-9_-]+["']?:( |$)/)) next
    name = substr(line, 1, RLENGTH)
    gsub(/["': ]/, "", name)
    value = substr(line, RLENGTH + 1)
    sub(/^ +/, "", value)
    if (indent == 0 && !is_item) top = name

    if (name == "instance-id") scalar("instance", value)
    else if (name == "local-hostname" || (name == "hostname" && indent == 0)) scalar("host", value)
    else if (name == "user" && indent == 0) scalar("user", value)
    else if (name == "name" && (top == "users" || top == "user")) user(value)
    else if (name == "users" && indent == 0) start("user", value)
    else if (name ~ /^(public-keys|ssh[_-]authorized[_-]keys)$/) start("key", value)
    else if (name == "runcmd" && indent == 0) start("run", value)
}

# A key that holds a list, in the line ("[a, b]") or in the lines below ("- a").
function start(kind, value,    n, parts, i) {
    if (value ~ /^\[/) {
        n = flow(value, parts)
        for (i = 1; i <= n; i++) item(kind, parts[i])
    } else if (value == "") {
        list = kind
        list_indent = indent
    } else item(kind, value)
}

function item(kind, value) {
    if (kind == "run") command(value)
    else if (kind == "user") {
        # "- name: me" is a map; its other lines are read as keys of their own.
        if (value ~ /^["']?name["']?: /) {
            sub(/^[^:]*: +/, "", value)
            user(value)
            list = ""
        } else if (value !~ /^[A-Za-z_-]+:/) user(value)
    } else scalar(kind, value)
}

function user(value) {
    value = plain(value)
    if (value == "default" || users++) return
    scalar("user", value)
}

function command(value,    n, parts, i, words) {
    if (value ~ /^[|>][-+0-9]*$/) {
        block = 1
        block_indent = indent
    } else if (value ~ /^\[/) { # a list of words, run without a shell's reading of them
        n = flow(value, parts)
        for (i = 1; i <= n; i++) {
            value = plain(parts[i])
            gsub(/'/, "'\\''", value)
            words = words "'" value "' "
        }
        print words > run
    } else print plain(value) > run
}

function scalar(kind, value) {
    value = plain(value)
    if (value != "" && value !~ /^[{[]/) print kind, value
}

# The text of a YAML scalar: plain, 'single' or "double" quoted (the latter also being JSON).
function plain(s,    out, i, c) {
    if (s ~ /^'/) {
        s = substr(s, 2)
        sub(/' *(#.*)?$/, "", s)
        gsub(/''/, "'", s)
        return s
    }
    if (s !~ /^"/) {
        sub(/[ \t]+#.*$/, "", s)
        sub(/[ \t]+$/, "", s)
        return s
    }
    for (i = 2; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (c == "\"") break
        if (c == "\\") {
            c = substr(s, ++i, 1)
            if (c ~ /[ntrbf]/) c = " "
            else if (c == "u") {
                c = "?"
                i += 4
            }
        }
        out = out c
    }
    return out
}

# Splits "[a, 'b', \"c, d\"]" into parts, quotes kept; returns how many.
function flow(s, parts,    n, i, c, quote, part) {
    n = 0
    for (i = 2; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (quote != "") {
            if (c == "\\" && quote == "\"") c = c substr(s, ++i, 1)
            else if (c == quote) quote = ""
        } else if (c == "," || c == "]") {
            sub(/^ +/, "", part)
            sub(/ +$/, "", part)
            if (part != "") parts[++n] = part
            part = ""
            if (c == "]") break
            continue
        } else if ((c == "\"" || c == "'") && part ~ /^ *$/) quote = c
        part = part c
    }
    return n
}
