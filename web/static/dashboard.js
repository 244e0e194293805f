// Live updates and growing durations. Everything else works without this file.
"use strict";
(() => {
  const body = document.body;
  const ahead = Date.parse(body.dataset.now) - Date.now(); // the server's clock decides
  const home = body.dataset.events?.replace(/\/events$/, "") || "./";
  const announce = document.getElementById("announce");
  let announced = document.querySelector("[data-announce]")?.dataset.announce;

  // The same words as model/serialization.py: span.
  function span(seconds) {
    const whole = Math.max(0, Math.round(seconds));
    if (whole < 60) return `${whole} s`;
    const minutes = Math.floor(whole / 60);
    if (whole < 3600) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
    if (whole >= 172800) return `${Math.floor(whole / 86400)} days`;
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  }

  function tick() {
    const now = Date.now() + ahead;
    for (const time of document.querySelectorAll("time.since")) {
      time.textContent = span((now - Date.parse(time.dataset.since)) / 1000);
    }
  }

  function show({ ids, parts }) {
    const shown = [...document.querySelectorAll("[data-key]:not([data-key=''])")].map((element) => element.id);
    if (String(shown) !== String(ids)) return location.replace(home); // the run has ended, or another one has begun
    for (const [id, [key, html]] of Object.entries(parts)) {
      const element = document.getElementById(id);
      if (element.dataset.key === key) continue;
      element.innerHTML = html;
      element.dataset.key = key;
      if (id === "gate") document.getElementById("sent")?.remove();
    }
    tick();
    const news = document.querySelector("[data-announce]")?.dataset.announce;
    if (news && news !== announced) announce.textContent = news;
    announced = news;
    document.title = document.title.replace(/^\(!\) /, "");
    if (document.querySelector("section.gate")) document.title = `(!) ${document.title}`;
  }

  // "Your answer was accepted" is for this visit only: not after a reload, and not at the next gate.
  // A refused answer has its own address: a reload of it would send the answer again.
  if (body.dataset.events) history.replaceState(null, "", home);

  tick();
  setInterval(tick, 1000);
  if (body.dataset.events) {
    const events = new EventSource(body.dataset.events);
    events.onmessage = (event) => {
      body.classList.remove("stale");
      show(JSON.parse(event.data));
    };
    events.addEventListener("problem", () => body.classList.add("stale"));
    events.onerror = () => body.classList.add("stale");
  }
})();
