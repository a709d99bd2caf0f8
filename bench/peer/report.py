"""Tables in Markdown of measured rows."""

import statistics

import benchlib

FAMILIES = {"linear": "Projections", "prefill": "Prefill", "decode": "Decode and few rows",
            "additive": "Additive pooling", "head": "Heads", "multihead": "Heads"}


def best(entries, name=None):
    """The fastest right entry (of a name), or None."""
    entries = [e for e in entries if not e["wrong"] and (name is None or e["name"] == name)]
    return min(entries, key=lambda e: e["median"], default=None)


def ratios(ours, peer):
    """Times of the peer over ours, round by round."""
    return sorted(p / o for p, o in zip(peer["seconds"], ours["seconds"]))


def judged(record):
    """(our entry, the best peer's, [lowest, median, highest ratio]) of each of our backends with a peer."""
    peers = [entry for entry in record["entries"] if not entry["ours"]]
    fastest = best(peers)
    for ours in (entry for entry in record["entries"] if entry["ours"]):
        if fastest:
            r = ratios(ours, fastest)
            yield ours, fastest, [r[0], statistics.median(r), r[-1]]


def speed(record, entry):
    if not entry:
        return "-"
    text = f"{record['work'] / entry['median']:.3g}"
    return text + "\\*" if entry["busy"] else text


def table(records, names):
    """One family: a line for each row, number of threads and backend."""
    head = ["row", "threads", "unit", "backend", "ours", *names, "best peer", "ratio", "range", ""]
    lines = [head, ["---"] * len(head)]
    for record in records:
        for ours, fastest, (low, ratio, high) in judged(record):
            cells = [speed(record, best(record["entries"], name)) for name in names]
            won = "won" if ratio > 1 else "**lost**"
            way = f"{fastest['name']}: {fastest['way']}" if fastest["way"] else fastest["name"]
            lines.append([record["row"], str(record["threads"]), record["unit"], ours["name"],
                          speed(record, ours), *cells, way, f"{ratio:.2f}", f"{low:.2f} to {high:.2f}", won])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tally(records):
    """A sentence for each backend and number of threads."""
    results = {}
    for record in records:
        for ours, _, (_, ratio, _) in judged(record):
            won, lost = results.setdefault((ours["name"], record["threads"]), ([], []))
            (won if ratio > 1 else lost).append((record["row"], ratio))
    for (backend, threads), (won, lost) in results.items():
        names = ": " + ", ".join(f"{row} ({ratio:.2f})" for row, ratio in lost) if lost else ""
        plural = "" if threads == 1 else "s"
        yield f"- {backend}, {threads} thread{plural}: {len(won)} won, {len(lost)} lost{names}."


def notes(report):
    for record in report["rows"]:
        for entry in record["entries"]:
            if entry["wrong"]:
                yield (f"- {record['row']}: {entry['name']} {entry['way']} is not compared, its result "
                       f"differs from ours by {entry['difference']:.1g} of the largest element.")
        if not any(not entry["ours"] for entry in record["entries"]):
            yield f"- {record['row']}: no installed peer can run it."
    if any(entry["busy"] for record in report["rows"] for entry in record["entries"]):
        yield "- \\*: not alone on its CPU; measure again when the machine is calm."
    for name, why in report["missing"].items():
        yield f"- Not measured: {name} {why}."


def merge(reports):
    """One report of several (a row measured twice: the last)."""
    if len({report["isa"] for report in reports}) > 1:
        raise benchlib.Problem("reports with --isa avx2 and without it make no common table")
    merged = dict(reports[-1], missing={}, versions={})
    rows = {}
    for report in reports:
        merged["missing"] |= report["missing"]
        merged["versions"] |= report["versions"]
        rows |= {(record["row"], record["threads"]): record for record in report["rows"]}
    return merged | {"rows": list(rows.values())}


def markdown(report):
    """The whole page."""
    versions = "; ".join(f"{name} {version}" for name, version in report["versions"].items())
    isa = " All peers that can be kept to it use AVX2." if report["isa"] == "avx2" else ""
    parts = [f"{report['machine']}, {report['date']}, {report['rounds']} interleaved rounds of "
             f"{report['min_time']} s or more, medians. {versions}. Ratio: the best peer's time over ours, "
             f"with its lowest and highest round; above 1 we are ahead.{isa}"]
    for title in dict.fromkeys(FAMILIES.values()):
        records = [record for record in report["rows"] if FAMILIES[record["kind"]] == title]
        present = {entry["name"] for record in records for entry in record["entries"]}
        if any(True for record in records for _ in judged(record)):
            columns = [name for name in report["versions"] if name in present]
            parts += [f"### {title}", table(records, columns)]
    parts.append("\n".join([*tally(report["rows"]), *notes(report)]))
    return "\n\n".join(parts)
