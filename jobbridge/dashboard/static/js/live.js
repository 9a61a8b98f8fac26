// Keeps a page as the jobs are now. What it finds on the page:
//
//   <html data-now="…">               the server's clock when it made the page
//   <body data-events="…">            where the stream is; without it only times go on
//   [data-job="ID"] [data-field="F"]  patched in place when the job changes; F is a name of the event, or `run_time`
//   [data-count="failed"], [data-count="celery:failed"]   totals
//   [data-live]                       says whether the page is live
//   <time datetime="…">3 s ago</time> goes on counting
//
// What it fires on <body>, for hx-trigger="jobs:changed from:body, jobs:reset from:body":
//
//   jobs:changed   some jobs changed; not more often than every two seconds, and less often the longer that goes on
//   jobs:reset     something may have been missed: read everything anew
//
// The words of the server are in docs/decisions/0011-live-events.md.
"use strict";

(() => {
  const SOONEST = 2000; // milliseconds between two `jobs:changed`
  const LATEST = 10000;
  const SHARE = 10; // a page that takes a second to fetch is fetched every ten seconds
  const HIDDEN_FOR = 30000; // a page that nobody looks at keeps its stream for so long
  const RETRY = [5000, 60000]; // after the server refused the stream

  const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

  let source = null;
  let seen = "";
  let wasOpen = false;
  let clockAhead = Date.parse(document.documentElement.dataset.now) - Date.now() || 0; // of the server, in milliseconds
  let retryAfter = RETRY[0];
  let retryTimer = 0;
  let hideTimer = 0;

  // -- the stream

  function open() {
    clearTimeout(retryTimer);
    if (source || document.hidden) return;
    const address = new URL(document.body.dataset.events, location.href);
    if (seen) address.searchParams.set("last_event_id", seen);
    source = new EventSource(address);
    source.addEventListener("open", opened);
    source.addEventListener("jobs", jobsChanged);
    source.addEventListener("counts", countsChanged);
    source.addEventListener("reset", wasReset);
    source.onerror = failed;
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  function opened(event) {
    if (!(event instanceof MessageEvent)) return; // EventSource's own `open`: the headers are there, and no more
    const told = read(event);
    clockAhead = Date.parse(told.now) - Date.now();
    retryAfter = RETRY[0];
    show(true, "Live");
    if (!told.resumed) {
      if (wasOpen) fireReset();
      else changed(); // between the making of the page and now
    }
    wasOpen = true;
  }

  function wasReset(event) {
    read(event);
    fireReset();
  }

  function failed() {
    show(false, "Reconnecting…");
    if (source.readyState !== EventSource.CLOSED) return; // the browser itself asks again
    close();
    retryTimer = setTimeout(open, retryAfter * (1 + Math.random() / 2));
    retryAfter = Math.min(2 * retryAfter, RETRY[1]);
  }

  function read(event) {
    if (event.lastEventId) seen = event.lastEventId;
    return JSON.parse(event.data);
  }

  function show(isLive, text) {
    for (const element of document.querySelectorAll("[data-live]")) {
      element.hidden = false;
      element.classList.toggle("is-live", isLive);
      setText(element, text);
    }
  }

  // -- what changed

  function jobsChanged(event) {
    for (const job of read(event)) {
      for (const element of document.querySelectorAll(`[data-job="${CSS.escape(job.job_id)}"]`)) {
        for (const field of element.querySelectorAll("[data-field]")) patch(field, job);
      }
    }
    changed();
  }

  function patch(field, job) {
    const name = field.dataset.field;
    if (name === "status") {
      field.classList.replace(field.textContent.trim(), job.status);
      setText(field, job.status);
    } else if (name === "progress") {
      patchProgress(field, job);
    } else if (name === "run_time") {
      const ran = job.started_at && job.completed_at ? seconds(job.started_at, job.completed_at) : null;
      setText(field, ran === null ? "—" : length(ran));
    } else if (!(name in job) || field.tagName === "PRE") {
      return; // an event has the first line of an error: the whole is fetched
    } else if (field.tagName === "TIME") {
      if (!job[name]) return;
      field.dateTime = field.title = job[name];
      setText(field, relative(job[name]));
    } else {
      setText(field, job[name] === null ? "" : String(job[name]));
    }
  }

  function patchProgress(field, job) {
    const runs = job.status === "processing" && job.progress !== null;
    field.hidden = !runs;
    if (!runs) return;
    if (field.tagName === "PROGRESS") field.value = job.progress;
    setText(field, `${Math.round(job.progress)} %`);
  }

  function countsChanged(event) {
    const counts = read(event);
    for (const element of document.querySelectorAll("[data-count]")) {
      const [first, second] = element.dataset.count.split(":");
      const of = second === undefined ? Object.values(counts).map((own) => own[first]) : [counts[first]?.[second]];
      if (of.every((jobs) => jobs !== undefined)) setText(element, grouped(of.reduce((sum, jobs) => sum + jobs, 0)));
    }
    changed();
  }

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  // -- telling the page's own parts

  let pause = SOONEST;
  let firedAt = 0;
  let fireTimer = 0;
  let fetchTook = 0;
  let owed = ""; // what was not fired while nobody looked

  function changed() {
    if (document.hidden) owed ||= "jobs:changed";
    if (fireTimer || document.hidden) return;
    const since = Date.now() - firedAt;
    if (since > 2 * LATEST) pause = SOONEST;
    const apart = Math.max(pause, Math.min(SHARE * fetchTook, RETRY[1]));
    const wait = Math.max(SOONEST / 4, apart - since) * (1 + Math.random() / 2); // not all pages at once
    fireTimer = setTimeout(() => fire("jobs:changed"), wait);
  }

  function fireReset() {
    clearTimeout(fireTimer);
    fireTimer = setTimeout(() => fire("jobs:reset"), Math.random() * SOONEST);
  }

  function fire(name) {
    fireTimer = 0;
    if (document.hidden) {
      owed = name;
      return;
    }
    firedAt = Date.now();
    pause = Math.min(pause * 1.5, LATEST);
    document.body.dispatchEvent(new CustomEvent(name, { bubbles: true }));
  }

  function measureFetches() {
    let began = 0;
    document.body.addEventListener("htmx:beforeRequest", () => (began = performance.now()));
    document.body.addEventListener("htmx:afterRequest", () => (fetchTook = performance.now() - began));
  }

  // -- times, in the words of the server (dashboard/looking/showing.py)

  function seconds(from, to) {
    return (Date.parse(to) - Date.parse(from)) / 1000;
  }

  function length(passed) {
    for (const [unit, size] of UNITS) {
      if (passed >= size) return unit === "s" && passed < 10 ? `${passed.toFixed(1)} s` : `${Math.floor(passed / size)} ${unit}`;
    }
    return `${Math.max(0, Math.round(passed * 1000))} ms`;
  }

  function relative(at) {
    const passed = (Date.now() + clockAhead - Date.parse(at)) / 1000;
    if (passed < 0) return `in ${length(-passed)}`;
    return passed < 1 ? "now" : `${length(passed)} ago`;
  }

  function grouped(number) {
    return String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  }

  function refreshTimes() {
    if (document.hidden) return;
    for (const element of document.querySelectorAll("time[datetime]")) {
      if (/^now$|^in | ago$/.test(element.textContent)) setText(element, relative(element.dateTime));
    }
  }

  // -- a page that nobody sees needs no stream

  function visibilityChanged() {
    clearTimeout(hideTimer);
    if (!document.hidden) {
      open();
      refreshTimes();
      if (owed) fire(owed);
      owed = "";
    } else {
      hideTimer = setTimeout(close, HIDDEN_FOR);
    }
  }

  setInterval(refreshTimes, 5000);
  if (!document.body.dataset.events) return;
  document.addEventListener("visibilitychange", visibilityChanged);
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  measureFetches();
  open();
})();
