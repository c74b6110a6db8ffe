// The rating page: enter, consent, rate, pause, done. Every text comes in through textContent.

import { HTTP_PROBLEM, Server, Videos, newId } from "./outbox.js";
import { PairPlayer } from "./player.js";

const $ = (id) => document.getElementById(id);
const answers = [...document.querySelectorAll("#answers button")];
const hear = [...document.querySelectorAll("button.hear")];
const server = new Server(say);
const videos = new Videos();
const player = new PairPlayer($("left"), $("right"), paint);
let study = null;
let task = null; // what is on the screen
let ahead = [];
let before = []; // answered tasks, the last at the end: what undo goes back to
let redoing = null; // the answered task that is on the screen again
let busy = false;
let question = ""; // the one that was asked last
let waiting = null;

function say(text) {
  $("banner").hidden = !text;
  $("banner").textContent = text || "";
}

function page(name) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== name;
  document.body.dataset.page = name;
  if (name !== "rate") player.pause();
}

function message(title, text, label, action) {
  $("message-title").textContent = title;
  $("message-text").textContent = text;
  $("message-button").hidden = !label;
  $("message-button").textContent = label || "";
  $("message-button").onclick = action || null;
  page("message");
}

async function begin() {
  study = await server.persist("GET", "api/study");
  document.title = study.title;
  for (const title of document.querySelectorAll(".title")) title.textContent = study.title;
  $("instructions").textContent = study.instructions || "Watch both videos to the end, then answer the question about them.";
  $("consent-text").textContent = study.consent || "Taking part is voluntary. You can stop at any time by closing this page.";
  const linked = new URLSearchParams(location.hash.slice(1)).get("code");
  const external = study.external && new URLSearchParams(location.search).get(study.external);
  const known = server.recall(study.key);
  if (linked) await enter({ code: linked });
  else if (external) await enter({ external });
  else if (known) await enter({ code: known });
  else if (study.anyone) await enter({});
  else page("enter");
}

async function enter(who) {
  try {
    const { code } = await server.persist("POST", "api/join", who);
    server.open(study.key, code);
    history.replaceState(null, "", `${location.pathname}#code=${code}`); // to come back, also on another device
    const unsent = server.unsent();
    if (unsent) {
      await server.vote(unsent).catch(() => {}); // refused: it was answered elsewhere meanwhile
    }
    follow(await server.persist("GET", "api/state"));
  } catch (error) {
    page("enter");
    say(error.message);
  }
}

// Shows what the server's state asks for.
function follow(state) {
  clearTimeout(waiting);
  if (state.last && !before.some((one) => one.id === state.last.id)) before.push(state.last);
  $("count").textContent = state.limit ? `${state.answered} of ${state.limit}` : `${state.answered} done`;
  ahead = state.ahead || [];
  if (state.status === "task") {
    if (question && question !== state.task.question) {
      message("A new question", state.task.question, "Go on", () => show(state.task, null));
    } else {
      show(state.task, null);
    }
  } else if (state.status === "consent") {
    page("consent");
  } else if (state.status === "paused") {
    message("Paused", "Come back by this page's address whenever you like, also on another device: it goes on where you stopped.", "Go on", () => turn("resume"));
  } else if (state.status === "done") {
    done(state.completion);
  } else {
    const closed = state.status === "closed";
    message(closed ? "The study is closed for now" : "Nothing to rate right now", closed ? "Your answers are saved." : "Others hold the last tasks. This page asks again by itself.");
    waiting = setTimeout(refresh, closed ? 15000 : 5000);
  }
}

function done(completion) {
  const url = completion && /^https:\/\//.test(completion);
  const text = completion && !url ? `\nYour completion code: ${completion}` : "";
  message("Thank you", `Everything is rated, and all your answers are saved.${text}`, url ? "Finish" : before.length ? "Undo the last answer" : "", () => (url ? location.assign(completion) : undo()));
}

async function refresh() {
  try { follow(await server.persist("GET", "api/state")); } catch (error) { say(error.message); }
}

async function turn(kind) {
  try { follow(await server.persist("POST", `api/${kind}`)); } catch (error) { say(error.message); }
}

function show(next, old) {
  redoing = old;
  page("rate");
  if (task && task.id === next.id && !old && player.ready) { player.play(); return; }
  task = next;
  say(null);
  question = old ? question : task.question;
  $("question").textContent = task.question;
  $("prompt").textContent = task.prompt;
  $("prompt-box").hidden = !task.prompt;
  $("reason").value = old ? old.reason : "";
  refer(task.reference);
  arrange();
  for (const button of hear) button.hidden = !task.sound;
  player.setView("side");
  load();
}

// What both videos are held against: a picture, or the video before an edit, which plays by itself.
function refer(path) {
  const box = $("reference");
  box.hidden = !path;
  box.classList.remove("large");
  if (box.dataset.path === (path || "")) return;
  box.dataset.path = path || "";
  box.replaceChildren();
  if (!path) return;
  const shown = document.createElement(path.endsWith(".png") ? "img" : "video");
  if (shown.localName === "img") shown.alt = "Reference"; else Object.assign(shown, { muted: true, loop: true, autoplay: true, playsInline: true });
  shown.src = path;
  const caption = document.createElement("figcaption");
  caption.textContent = "Reference";
  box.append(shown, caption);
}

// One above the other where the window is tall and the videos are not.
function arrange() {
  document.body.classList.toggle("stacked", Boolean(task) && innerHeight > innerWidth && task.width > 0.7 * task.height);
}

async function load() {
  const shown = task;
  videos.keepOnly([task, ...ahead, ...before.slice(-1)].flatMap((one) => [one.left, one.right]));
  try {
    await player.load(task, (url) => videos.get(url));
  } catch (error) {
    if (task === shown) say(`${error.message}. Try to load the page again.`);
    return;
  }
  if (task === shown && redoing) player.unlock();
  for (const one of ahead) { videos.get(one.left).catch(() => {}); videos.get(one.right).catch(() => {}); }
}

async function answer(side) {
  if (busy || !task || !player.unlocked || document.body.dataset.page !== "rate") return;
  busy = true;
  const earlier = redoing ? redoing.watch_seconds : [0, 0];
  const { replays, steps, flickers, hidden_times, hidden_seconds, max_drift_seconds } = player.facts;
  const round = (seconds) => Math.round(seconds * 1000) / 1000;
  const cast = {
    id: newId(),
    assignment: task.id,
    answer: side,
    watch_seconds: [round(player.watch.left + earlier[0]), round(player.watch.right + earlier[1])],
    reason: $("reason").value.trim(),
    undoes: redoing ? redoing.vote : null,
    details: {
      window: [innerWidth, innerHeight], touch: navigator.maxTouchPoints > 0, replays, steps, flickers, hidden_times,
      hidden_seconds: round(hidden_seconds), max_drift_seconds: round(max_drift_seconds), sent_again: 0,
    },
  };
  const mine = { ...task, vote: cast.id, answer: side, watch_seconds: cast.watch_seconds, reason: cast.reason };
  player.pause();
  paint();
  try {
    const state = await server.vote(cast);
    before = [...before.filter((one) => one.id !== mine.id), mine];
    busy = false;
    follow(state);
  } catch (error) {
    busy = false;
    task = null; // what the server says is what counts
    await refresh();
    if (error.name === HTTP_PROBLEM) say(`${error.message}.`);
  }
}

// Goes back to the answered task before the one on the screen; its answer stands until there is another.
function undo() {
  if (busy) return;
  const position = redoing ? before.findIndex((one) => one.id === redoing.id) : before.length;
  if (position > 0) show(before[position - 1], before[position - 1]);
}

function paint() {
  if (!task) return;
  const open = player.ready && player.unlocked && !busy;
  for (const button of answers) {
    button.disabled = !open;
    button.classList.toggle("chosen", Boolean(redoing) && redoing.answer === button.dataset.answer);
  }
  $("watched").value = player.progress;
  $("watched").hidden = open;
  const text = busy ? "Saving" : !player.ready ? "Loading" : open ? (redoing ? "Your answer stands until you give another" : "") : task.sound ? "Hear both to the end" : "Watch both to the end";
  if ($("lock-text").textContent !== text) $("lock-text").textContent = text;
  $("stage").className = player.view;
  $("stage").dataset.front = player.front;
  $("stage").classList.toggle("sound", task.sound);
  $("start").hidden = !player.blocked;
  $("play").lastElementChild.textContent = player.wanted ? "Pause" : "Play";
  $("undo").disabled = busy || !(redoing ? before.findIndex((one) => one.id === redoing.id) > 0 : before.length);
  for (const button of hear) button.setAttribute("aria-pressed", String(task.sound && button.dataset.side === player.front));
}

function flicker() {
  if (player.view === "flicker") player.swap(); else { player.setView("flicker"); player.show("left"); }
}

const keys = {
  1: () => answer("left"), 2: () => answer("tie"), 3: () => answer("right"),
  " ": () => player.toggle(), u: undo, a: () => player.again(), ",": () => player.step(-1), ".": () => player.step(1),
  f: flicker, escape: () => player.setView("side"), s: () => player.swap(), p: () => turn("pause"), r: () => $("reason").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && event.key !== "," && event.key !== ".") return;
  if (event.target === $("reason")) {
    if (event.key === "Enter" || event.key === "Escape") $("reason").blur();
    return;
  }
  if (document.body.dataset.page !== "rate") return;
  const action = keys[event.key.toLowerCase()];
  if (action) { event.preventDefault(); action(); }
});
for (const button of answers) button.addEventListener("click", () => answer(button.dataset.answer));
for (const button of hear) button.addEventListener("click", () => player.show(button.dataset.side));
for (const side of ["left", "right"]) {
  $(`${side}-figure`).querySelector("video").addEventListener("click", () => {
    if (player.view === "flicker") player.swap(); else if (task.sound) player.show(side); else player.toggle();
  });
}
$("reference").onclick = () => $("reference").classList.toggle("large");
$("undo").onclick = undo;
$("play").onclick = () => player.toggle();
$("start").onclick = () => player.play();
$("again").onclick = () => player.again();
$("back-frame").onclick = () => player.step(-1);
$("next-frame").onclick = () => player.step(1);
$("flicker").onclick = () => (player.view === "side" ? flicker() : player.setView("side"));
$("leave").onclick = () => turn("pause");
$("agree").onclick = () => turn("consent");
$("refuse").onclick = () => message("Thank you", "No answer of yours was stored. You can close this page.", "Back", () => page("consent"));
$("code-form").addEventListener("submit", (event) => { event.preventDefault(); say(null); enter({ code: $("code").value }); });
window.addEventListener("resize", arrange);
window.addEventListener("beforeunload", (event) => { if (busy) event.preventDefault(); });
window.moviegenStudy = { player, current: () => task }; // for tests in a browser
begin().catch((error) => say(error.message));
