"""The result as text."""


def number(line, key):
    value = line[key]
    return "" if value is None else line["format"].replace("+", "") % value


def spread(line):
    text = line["format"] % line["value"]
    if line["pairs"] > 1:
        text += "  (%s .. %s)" % (line["format"] % line["q1"],
                                  line["format"] % line["q3"])
    return text


def grid(rows):
    width = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    out = []
    for n, r in enumerate(rows):
        out.append("  ".join(c.ljust(w) for c, w in zip(r, width)).rstrip())
        if n == 0:
            out.append("  ".join("-" * w for w in width))
    return out


def table(result, o):
    m = result["machine"]
    other = "other" if o.plain_only else "llm"
    out = ["", "%s, %d cores, %s, Linux %s, %s, %s" % (
        m["cpu"], m["cores"], m["memory"], m["kernel"], m["nginx"],
        m["date"])]
    out.append("one worker on its own core; %d pairs of %.1f s for requests; "
               "median of the pairs (quartiles)" % (o.rounds, o.seconds))
    if o.plain_only:
        out.append("plain against plain: the module was NOT measured")
    elif o.quick:
        out.append("--quick: too few rounds to judge small differences by")
    out.append("")

    rows = [["row", "what", "plain", other, "%s to plain" % other, "floor",
             "goal", ""]]
    notes = []
    last = None
    for line in result["rows"]:
        mark = ""
        if line["note"]:
            if line["note"] not in notes:
                notes.append(line["note"])
            mark = " [%d]" % (notes.index(line["note"]) + 1)
        row = line["row"] if line["row"] != last else ""
        last = line["row"]
        rows.append([row, line["what"] + mark, line["plain"], line["llm"],
                     spread(line), number(line, "floor"),
                     number(line, "goal"), line["verdict"]])
    out += grid(rows)

    out += [""] if notes else []
    out += ["[%d] %s" % (i + 1, n) for i, n in enumerate(notes)]
    for name, why in result["skipped"].items():
        out.append("skipped %s: %s" % (name, why))
    for name, what in result["error_log"].items():
        out.append("error log of %s: %s, first: %s"
                   % (name, what["lines"], what["first"]))
    for name, why in result["broken"].items():
        out.append("BROKEN %s: %s" % (name, why))
    out.append("%.0f s; all numbers: %s" % (result["seconds"], o.json))
    return "\n".join(out)
