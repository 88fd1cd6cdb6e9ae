"""What t/soak/coalesce makes of what its clients have seen, and of the logs:
was there a reason for each answer that was not whole, and did each of the
others come as it has to when calls are joined?
"""

import collections
import json
import re

from answers import KEYS

SOON = 0.3             # from a kill until it is seen, at least
TOLD = 3.0             # a lost worker is told within 2 s, and seen in these
SHOWN = 15             # faults of one kind that are printed


class Verdict:
    def __init__(self, run):
        self.run = run
        self.kills = sorted(t for t, _ in run.kills)
        self.pids = {pid: t for t, pid in run.kills}
        self.count = collections.Counter()
        self.cache = collections.Counter()
        self.told = collections.Counter()
        self.bad = collections.defaultdict(list)
        self.longest = 0
        self.late = 0
        self.records = []
        for i in range(run.o.processes):
            with open(run.dir + "/records-%d" % i) as f:
                self.records += [json.loads(line) for line in f]

    def fault(self, kind, r, text=""):
        self.bad[kind].append("client %d, server %s, key %d %s, tenant %d, "
                              "%s%s: %s" % (
                                  r["client"], r["server"], r["key"],
                                  r["form"], r["tenant"],
                                  r.get("cache", "no head"),
                                  ", slow" if r["slow"] else "",
                                  text or r.get("why", "")))

    # ------------------------------------------------------------ reasons

    def killed(self, since, until):
        return any(since < t < until for t in self.kills)

    def lost(self, r):
        """Was the worker of this connection killed?  Who has no head does
        not know whose it is."""
        pid = r.get("pid") or r.get("keeper")
        if pid:
            return int(pid) in self.pids
        return self.killed(r["sent"] - SOON, r["end"])

    def failing(self, r):
        return any(a < r["end"] and r["sent"] < b + 0.3
                   for a, b, _, _ in self.run.faults)

    def reason(self, r):
        """Why an answer is not whole, None if there is no reason."""
        how, code = r["result"], r.get("code")
        if how == "cut":
            if self.lost(r):
                return "worker killed"
            if r["form"] == "plain" and r["status"] and r["got"] \
                    and self.killed(r["sent"] - SOON, r["end"]):
                return "plain, its flight was lost"
            if r["form"] == "plain" and r["slow"] and r["got"]:
                return "plain, read too slowly"
            if not r.get("first") and r.get("kept") and any(
                    r["kept"] - 1 < t < r["end"] for t in self.run.reloads):
                return "kept connection, reload"
            return None
        if code == "worker_lost":
            since = [r["end"] - t for t in self.kills
                     if r["sent"] - SOON < t < r["end"]]
            if not since:
                return None
            if r["slow"]:
                # reads first what was said before
                return code
            self.late = max(self.late, min(since))
            return code if min(since) < TOLD else None
        if code == "reader_too_slow":
            # whose worker was stopped is behind without a fault of his
            return code if KEYS[r["key"]].big and (
                r["slow"] or any(r["sent"] < b and a < r["end"]
                                 for a, b, _ in self.run.stops)) else None
        if how == "error" and self.failing(r):
            return "provider failed, %d" % r["status"]
        return None

    def unwhole(self, r):
        how = r["result"]
        if how == "left":
            self.count["left"] += 1
            return
        if how in ("hangs", "wrong"):
            self.fault(how, r, "%s, %s bytes, %s: %s" % (
                r.get("status"), r.get("got"), r.get("body", ""),
                r.get("why", "")))
            return
        reason = self.reason(r)
        self.told["%s: %s" % (how, reason)] += 1
        if reason is None:
            self.fault("without a reason", r, "%s, status %s, code %s, %s "
                       "bytes after %.1f s, %s" % (
                           how, r.get("status"), r.get("code"), r.get("got"),
                           r["end"] - r["sent"], r.get("why")))

    # -------------------------------------------------------------- whole

    def whole(self, r):
        """What its head says must fit together."""
        cache, attempts = r.get("cache", ""), int(r.get("attempts", -1))
        self.cache[cache] += 1
        self.longest = max(self.longest, 0 if r["slow"]
                           else r["end"] - r["sent"])
        allowed = {"off": ("OFF", "COALESCED", "BYPASS"),
                   "on": ("MISS", "EXPIRED", "HIT", "STALE", "COALESCED",
                          "BYPASS")}
        if cache not in allowed[r["server"]]:
            self.fault("X-LLM-Cache", r)
        if cache in ("COALESCED", "HIT") and attempts != 0:
            self.fault("attempts", r, "%d" % attempts)
        if cache in ("OFF", "MISS", "EXPIRED", "BYPASS") and attempts < 1:
            self.fault("attempts", r, "%d" % attempts)
        if r["nocache"] and cache in ("COALESCED", "HIT", "STALE"):
            self.fault("joined in spite of no-cache", r)
        if cache == "COALESCED" and "provider" not in r:
            self.fault("a follower is not told the provider", r)

    def calls(self):
        """Answers of one call: its readers.  Those of the cache are one
        more kind of reader."""
        found = collections.defaultdict(list)
        item, folds = {}, {}
        for r in self.records:
            if r["result"] == "whole" and r.get("ids"):
                found[r["ids"][0]].append(r)
                for other in r["ids"][1:]:
                    if item.setdefault(r["ids"][0], other) != other:
                        self.fault("ids of two calls in one answer", r,
                                   str(r["ids"]))
            if r.get("fold"):
                k = r["key"], r["ids"][0]
                if folds.setdefault(k, r["fold"]) != r["fold"]:
                    self.fault("one answer, folded in two ways", r)
        for readers in found.values():
            self.readers(readers)
        return found

    def readers(self, readers):
        for what in ("server", "tenant", "key"):
            if len({r[what] for r in readers}) > 1:
                self.fault("one call for more than one " + what, readers[0],
                           str({r[what] for r in readers}))
        led = [r for r in readers if r.get("cache") in (
            "OFF", "MISS", "EXPIRED", "BYPASS")]
        if len(led) > 1:
            self.fault("two that have made one call", led[0], "request %s "
                       "and %s" % (led[0].get("request"),
                                   led[1].get("request")))
        joined = [r for r in readers if r.get("cache") == "COALESCED"]
        if joined:
            self.count["shared calls"] += 1
            if len({r["pid"] for r in led + joined}) > 1:
                self.count["over workers"] += 1
            if joined and led and any(r["form"] == "plain" for r in joined) \
                    and led[0]["form"] != "plain":
                self.count["plain of a stream"] += 1

    def twice(self, found):
        """A stream that was asked for and begun while the same one was in
        the air for certain: it had been shown to somebody, and the provider
        cannot have been through.  The kernel may have shown the one in the
        air before this one's worker was told of a reload."""
        flights = collections.defaultdict(list)
        for readers in found.values():
            r = readers[0]
            led = [x for x in readers if x.get("cache") in (
                "OFF", "MISS", "EXPIRED") and x["form"] != "plain"]
            if len(led) != 1 or KEYS[r["key"]].big or led[0]["nocache"]:
                continue
            begun = min(x["head"] for x in readers if "head" in x)
            end = led[0]["sent"] + KEYS[r["key"]].least
            flights[r["server"], r["tenant"], r["key"]].append(
                (begun, end, led[0]))
        for all in flights.values():
            self.count["flights compared"] += len(all)
            for begun, end, first in all:
                for _, _, r in all:
                    if r is not first and begun < r["sent"] \
                            and r["head"] < end \
                            and not self.disturbed(first["sent"], r["head"]):
                        self.fault("two calls at a time", r, "requests %s and"
                                   " %s; %.3f s after the other's head" % (
                                       first.get("request"),
                                       r.get("request"),
                                       r["sent"] - begun))

    def disturbed(self, since, until):
        return self.killed(since - 1, until) or any(
            since - 1.5 < t < until for t in self.run.reloads)

    # --------------------------------------------------------------- logs

    def errors(self):
        """Lines of the error log that must not be."""
        killed = 0
        with open(self.run.dir + "/error.log", errors="replace") as f:
            for line in f:
                if "exited on signal 9" in line:
                    killed += 1
                elif re.search(r"\[(alert|crit|emerg)\]|Sanitizer"
                               r"|exited on signal", line) \
                        and "was locked by" not in line:
                    self.bad["log"].append(line.strip()[:300])
        if killed != len(self.run.kills):
            self.bad["kills"].append("%d workers were killed, %d by this" % (
                killed, len(self.run.kills)))

    def access(self):
        """Each flight has one who leads; a follower's line names it."""
        leads = collections.Counter()
        with open(self.run.dir + "/access.log", errors="replace") as f:
            for line in f:
                m = re.match(r'(\S+) (\d+) (\S+) (\d*|-) "([^"]*)"', line)
                if not m:
                    self.bad["access log"].append(line[:200])
                    continue
                request, _, cache, attempts, flight = m.groups()
                self.count["lines"] += 1
                flight = "" if flight == "-" else flight
                if cache == "COALESCED":
                    if not flight and '"client_closed"' in line:
                        # it left before the other worker had a turn
                        self.count["left unnamed"] += 1
                        continue
                    if not flight or flight == request:
                        self.bad["access log"].append(
                            "a follower without its flight: " + line[:200])
                elif flight:
                    leads[flight] += 1
                    if flight == request:
                        self.count["leaders' lines"] += 1
        for flight, n in leads.items():
            if n > 1:
                self.bad["access log"].append("%d lead the flight %s" % (
                    n, flight))

    # -------------------------------------------------------------- result

    def tested(self, calls):
        """Was it a test at all?"""
        n = len(self.records)
        whole = sum(self.cache.values())
        f = self.run.figures
        f["requests"] = "%d, whole %d, calls at the providers %d (%.2f a " \
            "request)" % (n, whole, calls, calls / max(1, n))
        f["X-LLM-Cache"] = ", ".join("%s %d" % kv for kv in
                                     sorted(self.cache.items()))
        f["not whole"] = ", ".join("%s %d" % kv for kv in
                                   sorted(self.told.items())) or "none"
        f["counts"] = ", ".join("%s %d" % kv for kv in
                                sorted(self.count.items()))
        f["longest answer"] = "%.1f s; worker_lost told after %.1f s at " \
            "most" % (self.longest, self.late)
        f["done"] = "%d kills, %d reloads, %d stops, %d faults" % (
            len(self.run.kills), len(self.run.reloads), len(self.run.stops),
            len(self.run.faults))
        nothing = self.bad["nothing was tested"]
        if whole < n / 2:
            nothing.append("%d of %d answers are whole" % (whole, n))
        if self.cache["COALESCED"] < n / 5:
            nothing.append("%d of %d have joined" % (
                self.cache["COALESCED"], n))
        if calls > n * 0.6:
            nothing.append("%d calls for %d requests" % (calls, n))
        for what in ("over workers", "plain of a stream", "left",
                     "flights compared"):
            if not self.count[what]:
                nothing.append("none: " + what)
        if self.run.coalesced["joined"] < self.cache["COALESCED"]:
            nothing.append("the status tells of %d, the answers of %d that "
                           "have joined" % (self.run.coalesced["joined"],
                                            self.cache["COALESCED"]))


def judge(run, calls):
    """All that is wrong, a line each."""
    v = Verdict(run)
    for r in v.records:
        if r["result"] == "whole":
            v.whole(r)
        else:
            v.unwhole(r)
    found = v.calls()
    v.twice(found)
    v.errors()
    v.access()
    v.tested(calls)
    if len(found) > calls:
        v.bad["calls"].append("%d calls, answers of %d" % (calls, len(found)))
    ids = [r["request"] for r in v.records if "request" in r]
    if len(ids) != len(set(ids)):
        v.bad["X-LLM-Request-Id"].append("%d of %d have been there before" % (
            len(ids) - len(set(ids)), len(ids)))
    out = []
    for kind, lines in v.bad.items():
        out += ["%s: %s" % (kind, line) for line in lines[:SHOWN]]
        if len(lines) > SHOWN:
            out.append("%s: %d in all" % (kind, len(lines)))
    return out
