"use strict";
// Pairs play in step, load when they come into view, and are filtered. Reads attributes only; writes no html.
(() => {
  const grid = document.querySelector('[data-role="grid"]');
  if (!grid) return;
  const cards = [...grid.querySelectorAll("figure")];
  const selects = [...document.querySelectorAll("[data-filter]")];
  const count = document.querySelector('[data-role="count"]');

  const facets = new Map(cards.map((card) => [card, new Map((card.dataset.facets || "").split("\n").map((line) => {
    const cut = line.indexOf("=");
    return [line.slice(0, cut), line.slice(cut + 1).split("|")];
  }))]));

  function load(card) {
    for (const video of card.querySelectorAll("video[data-src]")) {
      video.src = video.dataset.src;
      video.removeAttribute("data-src");
      video.preload = "auto";
    }
  }

  function ready(card) {
    load(card);
    const videos = [...card.querySelectorAll("video")];
    return Promise.all(videos.map((video) => video.readyState >= 3 ? 0 : new Promise((done) => {
      video.addEventListener("canplay", done, { once: true });
      video.addEventListener("error", done, { once: true });
    }))).then(() => videos);
  }

  async function play(card) {
    const videos = await ready(card);
    for (const video of videos) video.currentTime = 0;
    for (const video of videos) video.play().catch(() => {});
    card.dataset.playing = "yes";
  }

  function pause(card) {
    for (const video of card.querySelectorAll("video")) video.pause();
    card.dataset.playing = "no";
  }

  // The shorter of a pair waits at its end, so that both begin their loops together.
  for (const card of cards) {
    const videos = [...card.querySelectorAll("video")];
    for (const video of videos) {
      video.loop = false;
      video.addEventListener("ended", () => {
        if (videos.every((one) => one.ended || one.error)) play(card);
      });
    }
    card.querySelector(".both").addEventListener("click", () => {
      if (card.dataset.playing === "yes") pause(card); else play(card);
    });
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.hidden) play(entry.target); else pause(entry.target);
    }
  }, { rootMargin: "100px" });
  cards.forEach((card) => seen.observe(card));

  function filter() {
    let shown = 0;
    for (const card of cards) {
      const own = facets.get(card);
      const fits = selects.every((one) => !one.value || (own.get(one.dataset.filter) || []).includes(one.value));
      card.hidden = !fits;
      if (!fits) pause(card);
      shown += fits ? 1 : 0;
    }
    count.textContent = `${shown} of ${cards.length} shown`;
  }
  selects.forEach((one) => one.addEventListener("change", filter));
  document.querySelector('[data-role="play"]').addEventListener("click", () =>
    cards.filter((card) => !card.hidden).forEach(play));
  document.querySelector('[data-role="pause"]').addEventListener("click", () => cards.forEach(pause));
  filter();
})();
