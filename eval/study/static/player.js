// Two videos played as one: in step to a fraction of a frame, loaded whole before they start, and what was really
// watched of each is known. With sound, one of the two is heard at a time, and only what was heard counts as watched.

const BINS = 200; // parts of a clip whose showing is remembered
const HARD_DRIFT = 0.12; // seconds; beyond, seek; below, run faster or slower
const COVERED = 0.97; // of the clip must have been shown

export class PairPlayer {
  constructor(left, right, changed) {
    this.videos = { left, right };
    this.changed = changed; // called when something to display changed
    this.generation = 0;
    this.view = "side"; // or "flicker": both in one place
    this.front = "left"; // what is heard, or seen in the flicker view
    this.reset({ duration_seconds: 1, frame_rate: 24, sound: false });
    for (const video of [left, right]) {
      video.addEventListener("ended", () => this.ended());
      for (const kind of ["play", "pause", "seeked"]) video.addEventListener(kind, () => this.changed());
    }
    document.addEventListener("visibilitychange", () => this.visibility());
    const tick = () => { this.tick(); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  reset(task) {
    this.task = task;
    this.ready = false;
    this.free = false; // watched before
    this.wanted = false; // whether it should be playing
    this.seen = { left: new Uint8Array(BINS), right: new Uint8Array(BINS) };
    this.last = { left: null, right: null };
    this.watch = { left: 0, right: 0 };
    this.facts = { replays: 0, steps: 0, flickers: 0, hidden_times: 0, hidden_seconds: 0, max_drift_seconds: 0 };
    this.clock = performance.now();
    this.hiddenAt = document.hidden ? this.clock : null;
  }

  // Loads both videos whole, then starts them. `urls(name)` gives a promise of an object url.
  async load(task, blobUrl) {
    const generation = ++this.generation;
    this.reset(task);
    this.front = "left";
    for (const video of Object.values(this.videos)) { video.pause(); video.removeAttribute("src"); video.load(); }
    this.changed();
    const urls = await Promise.all([blobUrl(task.left), blobUrl(task.right)]);
    if (generation !== this.generation) return;
    await Promise.all([this.open(this.videos.left, urls[0]), this.open(this.videos.right, urls[1])]);
    if (generation !== this.generation) return;
    this.ready = true;
    this.mute();
    await this.play();
  }

  open(video, url) {
    return new Promise((resolve, reject) => {
      const done = (call, value) => { video.oncanplaythrough = video.onerror = null; call(value); };
      video.oncanplaythrough = () => done(resolve);
      video.onerror = () => done(reject, new Error("this video cannot be played here"));
      video.src = url;
      video.load();
    });
  }

  get duration() {
    const lengths = Object.values(this.videos).map((video) => video.duration).filter(Number.isFinite);
    return lengths.length ? Math.min(...lengths) : this.task.duration_seconds;
  }

  get playing() { return this.wanted && !this.videos.left.paused && !this.videos.right.paused; }

  async play() {
    if (!this.ready || document.hidden) return;
    if (this.finished()) this.seek(0);
    this.wanted = true;
    this.clock = performance.now();
    try {
      await Promise.all(Object.values(this.videos).map((video) => video.play()));
      this.blocked = false;
    } catch (error) {
      if (error.name === "NotAllowedError") { this.pause(); this.blocked = true; } // needs a touch first
    }
    this.changed();
  }

  pause() {
    this.wanted = false;
    for (const video of Object.values(this.videos)) video.pause();
    this.changed();
  }

  toggle() { return this.wanted ? this.pause() : this.play(); }

  again() { this.facts.replays += 1; this.seek(0); return this.play(); }

  step(count) {
    this.pause();
    this.facts.steps += 1;
    const frame = 1 / this.task.frame_rate;
    const now = Math.round(this.videos.left.currentTime / frame - 0.5);
    this.seek(Math.min(Math.max(0, now + count) * frame + frame / 2, this.duration - frame / 4));
  }

  seek(seconds) {
    for (const [side, video] of Object.entries(this.videos)) { video.currentTime = seconds; this.last[side] = null; }
  }

  // Which of the two is heard (on axes with sound) or lies in front (in the flicker view).
  show(side) {
    if (this.front !== side && this.view === "flicker") this.facts.flickers += 1;
    this.front = side;
    this.mute();
    this.changed();
  }

  swap() { this.show(this.front === "left" ? "right" : "left"); }

  setView(view) { this.view = view; this.changed(); }

  mute() {
    for (const [side, video] of Object.entries(this.videos)) video.muted = !(this.task.sound && side === this.front);
  }

  counts(side) { return (!this.task.sound && this.view === "side") || side === this.front; }

  finished() { return Object.values(this.videos).every((video) => video.ended || video.currentTime >= this.duration - 0.01); }

  ended() {
    for (const [side, video] of Object.entries(this.videos)) if (video.ended) this.mark(side, this.duration);
    if (!this.wanted || !Object.values(this.videos).every((video) => video.ended)) return;
    this.facts.replays += 1;
    if (this.task.sound && this.share(this.front) >= COVERED && !this.unlocked) this.swap(); // now the other one's sound
    this.seek(0);
    this.play();
  }

  visibility() {
    const now = performance.now();
    if (document.hidden) {
      this.hiddenAt = now;
      this.resume = this.wanted;
      this.facts.hidden_times += 1;
      this.pause();
    } else if (this.hiddenAt !== null) {
      this.facts.hidden_seconds += (now - this.hiddenAt) / 1000;
      this.hiddenAt = null;
      if (this.resume) this.play();
    }
  }

  tick() {
    const now = performance.now();
    const passed = Math.min(0.5, (now - this.clock) / 1000);
    this.clock = now;
    if (!this.ready || !this.wanted || document.hidden) return;
    const { left, right } = this.videos;
    for (const [side, video] of Object.entries(this.videos)) {
      if (video.paused || video.seeking) { this.last[side] = null; continue; }
      if (this.counts(side)) this.watch[side] += passed;
      this.mark(side, video.currentTime);
    }
    if (!left.paused && !right.paused && !left.seeking && !right.seeking) this.keepStep();
    this.changed();
  }

  // The one that is heard, or else the left one, leads; the other runs a little faster or slower, or jumps.
  keepStep() {
    const leader = this.task.sound ? this.front : "left";
    const lead = this.videos[leader], other = this.videos[leader === "left" ? "right" : "left"];
    const drift = other.currentTime - lead.currentTime;
    lead.playbackRate = 1;
    if (Math.abs(drift) > HARD_DRIFT) {
      other.currentTime = lead.currentTime;
    } else {
      other.playbackRate = Math.abs(drift) < 0.004 ? 1 : 1 - Math.max(-0.15, Math.min(0.15, drift * 2));
    }
    if (this.watch.left > 0.5) this.facts.max_drift_seconds = Math.max(this.facts.max_drift_seconds, Math.abs(drift));
    this.drift = drift;
  }

  mark(side, time) {
    const from = this.last[side];
    this.last[side] = time;
    if (from === null || time < from || time - from > 1 || !this.counts(side)) return;
    const bin = (seconds) => Math.min(BINS - 1, Math.max(0, Math.floor((seconds / this.duration) * BINS)));
    // The first frame is on the screen before the first tick, so time 0 counts from wherever the first tick finds it.
    const first = from < 0.25 && from < this.duration / 4 ? 0 : bin(from);
    this.seen[side].fill(1, first, bin(time) + 1);
  }

  share(side) { return this.seen[side].reduce((sum, one) => sum + one, 0) / BINS; }

  // How much of what is asked for was watched of both: 1 opens the answers.
  get progress() {
    if (this.free) return 1;
    const part = (side) => Math.min(this.share(side) / COVERED, this.watch[side] / (this.task.least_seconds || 1e-9), 1);
    return (part("left") + part("right")) / 2;
  }

  get unlocked() { return this.progress === 1; }

  // For a task that was watched before (undo).
  unlock() { this.free = true; this.changed(); }
}
