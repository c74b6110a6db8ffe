// Progress, agreement and gold accuracy of a running study, asked for every few seconds.

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";

function say(text) { $("banner").hidden = !text; $("banner").textContent = text || ""; }

async function ask(method, path, body) {
  const headers = { "X-Admin": token };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `the server answered ${answer.status}`);
  return answer;
}

function row(cells, kind = "td") {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const box = document.createElement(kind);
    if (cell instanceof Node) box.append(cell); else box.textContent = cell === null || cell === undefined ? "-" : String(cell);
    line.append(box);
  }
  return line;
}

function bar(value) {
  const progress = document.createElement("progress");
  progress.max = 1;
  progress.value = value;
  return progress;
}

const percent = (share) => (share === null || share === undefined ? "-" : `${Math.round(100 * share)} %`);
const fixed = (value, digits) => (value === null || value === undefined ? "-" : value.toFixed(digits));

function fact(value, label) {
  const box = document.createElement("div"), number = document.createElement("b"), name = document.createElement("span");
  number.textContent = value;
  name.textContent = label;
  box.append(number, name);
  return box;
}

function paint(now) {
  document.querySelector("main").hidden = false;
  document.title = `Admin: ${now.title}`;
  $("title").textContent = now.title;
  $("digest").textContent = now.study.slice(0, 12);
  $("facts").replaceChildren(
    fact(percent(now.needed ? now.voted / now.needed : 0), `${now.voted} of ${now.needed} votes`),
    fact(now.raters.length, "raters"), fact(now.active, "active in 5 minutes"),
    fact(percent(now.gold_accuracy), `gold accuracy, ${now.gold} votes`), fact(fixed(now.side_p, 3), "p of no side bias, all raters"),
  );
  $("accepting").textContent = now.accepting ? "Close the study" : "Open the study again";
  $("accepting").onclick = () => change(now.accepting ? "close" : "open");
  $("axes").replaceChildren(
    row(["Axis", "", "Votes", "Needed", "Items done", "Items", "Ties", "Alpha", "Items with 2+ votes"], "th"),
    ...now.axes.map((a) => row([a.axis, bar(a.needed ? a.voted / a.needed : 0), a.voted, a.needed, a.done, a.items, percent(a.ties), fixed(a.alpha, 2), a.shared])),
  );
  $("raters").replaceChildren(
    row(["Rater", "Votes", "Gold right", "Left", "Right", "p of no side bias", "Agrees with most", "Ties", "Median watch, s", "State", "Remarks"], "th"),
    ...now.raters.map((r) => {
      const remarks = r.excluded ? `left out: ${r.excluded}` : (r.flags || []).join(", ");
      const of = (part, whole) => (whole ? `${part} of ${whole}` : "-");
      const line = row([r.rater, r.votes || 0, of(r.gold_right, r.gold), r.left, r.right, fixed(r.side_p, 3), of(r.agreed, r.compared), percent(r.ties), fixed(r.watch_seconds, 1), r.active ? `${r.state}, here` : r.state, remarks]);
      line.classList.toggle("flagged", Boolean(r.excluded));
      return line;
    }),
  );
  const out = now.left_out.map((one) => `${one.count} votes do not count: ${one.reason}`).join("\n");
  $("left-out").textContent = out;
}

async function refresh() {
  try {
    paint(await (await ask("GET", "api/admin/progress")).json());
    say(null);
  } catch (error) { say(error.message); }
}

async function change(kind) {
  try { await ask("POST", `api/admin/${kind}`, {}); } catch (error) { say(error.message); }
  await refresh();
}

$("create").onclick = async () => {
  try {
    const { codes } = await (await ask("POST", "api/admin/raters", { count: Number($("count").value) })).json();
    const base = location.href.replace(/admin.*$/, "");
    $("links").hidden = false;
    $("links").value = codes.map((code) => `${base}#code=${code}`).join("\n");
    await refresh();
  } catch (error) { say(error.message); }
};

$("download").onclick = async () => {
  try {
    const url = URL.createObjectURL(await (await ask("GET", "api/admin/votes")).blob());
    const link = document.createElement("a");
    link.href = url;
    link.download = "votes.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  } catch (error) { say(error.message); }
};

refresh();
setInterval(refresh, 3000);
