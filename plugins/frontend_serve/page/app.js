// The page: who is talked to, when in the story, and what was said. All text enters as text, never as HTML.
import { ask, Lost, models, Refused, story, useToken, waitForServer } from "./api.js";
import { WORDS, fill } from "./words.js";

const $ = (id) => document.getElementById(id);
const store = {
  get: (key, other) => { try { return JSON.parse(localStorage.getItem(`camelbell.${key}`)) ?? other; } catch { return other; } },
  set: (key, value) => { try { localStorage.setItem(`camelbell.${key}`, JSON.stringify(value)); } catch { /* full, or forbidden */ } },
};
const SENT = 40; // messages of history that go with a question; the server keeps fewer in the prompt
const FREER = 0.7; // the temperature of another reply: a greedy one would be the same

let language = store.get("language", /^zh/i.test(navigator.language) ? "zh" : "en");
let theme = store.get("theme", "auto");
let characters = []; // what /v1/models tells of each
let character = null; // the one talked to
let talk = []; // {role, content, at, lang, about, note, error}
let place = 0; // of the story slider; the last one is the end of the story
let running = null; // the AbortController of the reply that comes in

const word = (key, values = {}) => fill(WORDS[language][key], values);

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function button(text, act) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

// --- the story's time ------------------------------------------------------------------------------

const chaptersOf = (about) => about.chapters.reduce((sum, count) => sum + count, 0);

// The n-th chapter as "part-chapter"; past the last it is "", the end of the story.
function pointAt(about, number) {
  let left = number;
  for (const [part, count] of about.chapters.entries()) {
    if (left <= count) return `${part + 1}-${left}`;
    left -= count;
  }
  return "";
}

function pointName(point, about = character) {
  if (!point) return word("end");
  const [part, chapter] = point.split("-");
  return sourceName(part, chapter, about);
}

function sourceName(part, chapter, about = character) {
  const name = fill(about.part[language] ?? word("part"), { n: part });
  return `${name[0].toUpperCase()}${name.slice(1)}${language === "zh" ? "" : ", "}${fill(word("chapter"), { n: chapter })}`;
}

const point = () => (character ? pointAt(character, place) : "");
const modelName = () => (point() ? `${character.character}@${point()}` : character.character);

let asked = 0;
async function showTime() {
  const about = character, chapters = chaptersOf(about), mine = ++asked;
  $("story").hidden = !chapters;
  if (!chapters) return;
  $("time").max = chapters + 1;
  $("time").value = place;
  $("time").setAttribute("aria-valuetext", pointName(point()));
  $("when").textContent = pointName(point());
  await new Promise((done) => setTimeout(done, 150)); // while the slider moves, nothing is asked
  if (mine !== asked) return;
  try {
    const known = await story(about.character, point() || "end", language);
    if (mine !== asked) return;
    $("knows").textContent = word("knows", { known: known.known, facts: known.facts });
    $("lately").replaceChildren(...known.lately.map((fact) => factItem(fact, about)));
  } catch (error) {
    failed(error);
  }
}

function factItem(fact, about = character) {
  const item = element("li", fact.text);
  if (fact.part) item.append(" ", element("small", sourceName(fact.part, fact.chapter, about), "source"));
  return item;
}

// --- what was said ---------------------------------------------------------------------------------

function show(message) {
  const box = element("article", "", `message ${message.role}`);
  const mine = message.role === "user";
  if (!mine) {
    const picture = element("img");
    picture.src = `camelbell/avatars/${encodeURIComponent(character.character)}`;
    picture.alt = "";
    box.append(picture);
  }
  const body = element("div", "", "body");
  const said = element("p", message.content, "said");
  said.lang = message.lang ?? "";
  const who = element("span", mine ? word("you") : title(character), "unseen");
  body.append(who, said);
  if (message.error) body.append(element("p", message.error, "error"));
  if (message.note) body.append(element("small", word(message.note), "note"));
  if (message.about) body.append(behind(message));
  box.append(body);
  return box;
}

// What a reply rests on, folded away.
function behind(message) {
  const about = message.about, fold = element("details"), facts = unlike(about.facts);
  const when = message.at ? ` · ${word("asOf", { when: pointName(message.at) })}` : "";
  fold.append(element("summary", word("facts", { n: facts.length }) + when));
  const list = element("ul");
  list.append(...facts.map((fact) => factItem(fact)));
  fold.append(facts.length ? list : element("p", word("none")));
  for (const held of about.held_back) fold.append(element("p", word("held", held), "note"));
  if (about.composed) fold.append(element("p", word("composed"), "note"));
  return fold;
}

// Facts that say the same of the same place are shown once.
function unlike(facts) {
  return [...new Map(facts.map((fact) => [`${fact.text} ${fact.part}-${fact.chapter}`, fact])).values()];
}

function title(about) {
  return about.title[language] ?? Object.values(about.title)[0];
}

function showTalk() {
  const greeting = character.greeting[language];
  const first = greeting ? [show({ role: "assistant", content: greeting, lang: language })] : [];
  $("log").replaceChildren(...first, ...talk.map(show));
  const last = talk.at(-1), unanswered = last && (last.role === "user" || last.error || !last.content);
  if (last && !running) {
    const retry = button(word(unanswered ? "again" : "retry"), () => again(!unanswered));
    retry.id = "retry";
    $("log").lastElementChild.querySelector(".body").append(retry);
  }
  $("send").textContent = word(running ? "stop" : "send");
  $("log").scrollTop = $("log").scrollHeight;
}

const keep = (about, said) => store.set(`talk.${about.character}`, said.slice(-400));

// --- asking ----------------------------------------------------------------------------------------

async function say(text) {
  talk.push({ role: "user", content: text, at: point() });
  await reply({});
}

// Ask the last question once more; a freer reply where there was one.
async function again(freer) {
  if (talk.at(-1)?.role === "assistant") talk.pop();
  await reply(freer ? { temperature: FREER, seed: Math.floor(Math.random() * 2 ** 31) } : {});
}

async function reply(more) {
  const about = character, mine = talk, made = { role: "assistant", content: "", at: point() };
  // A question whose reply failed, and was not asked again, is not sent.
  const sound = mine.filter((m, number) => m.content && !m.error && !mine[number + 1]?.error);
  const messages = sound.slice(-SENT).map(({ role, content }) => ({ role, content }));
  running = new AbortController();
  mine.push(made);
  showTalk();
  const box = $("log").lastElementChild, said = box.querySelector(".said");
  box.setAttribute("aria-busy", "true");
  try {
    const signal = running.signal;
    for await (const chunk of ask({ model: modelName(), messages, ...more }, signal)) {
      const choice = chunk.choices[0];
      made.content += choice?.delta.content ?? "";
      if (chunk.camelbell) [made.about, made.lang] = [chunk.camelbell, chunk.camelbell.language];
      if (choice?.finish_reason === "length") made.note = "cut";
      said.textContent = made.content;
      $("log").scrollTop = $("log").scrollHeight;
    }
    made.content = made.content.trim();
    $("spoken").textContent = made.content;
  } catch (error) {
    if (error.name === "AbortError") made.note = "stopped";
    else {
      made.error = reason(error);
      $("spoken").textContent = made.error;
      failed(error);
    }
  } finally {
    if (!made.content && !made.error) mine.splice(mine.indexOf(made), 1);
    if (mine === talk || about !== character) keep(about, mine);
    if (mine === talk) {
      running = null;
      showTalk();
    }
  }
}

function reason(error) {
  if (error instanceof Refused && error.status === 429) return word("busy", { n: error.retryAfter });
  return word("failed", { why: error.message });
}

// --- when something is wrong -----------------------------------------------------------------------

let waiting = false;
async function failed(error) {
  if (error instanceof Refused && error.status === 401) return $("door").open || $("door").showModal();
  if (!(error instanceof Lost) || waiting) return;
  waiting = true;
  tell(word("lost"));
  await waitForServer();
  waiting = false;
  tell(word("back"), 4000);
  await start();
}

function tell(text, milliseconds = 0) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  if (milliseconds) setTimeout(() => { if ($("notice").textContent === text) $("notice").hidden = true; }, milliseconds);
}

// --- the frame -------------------------------------------------------------------------------------

function choose(about) {
  running?.abort();
  running = null;
  character = about;
  store.set("character", about.character);
  talk = store.get(`talk.${about.character}`, []);
  const chapters = chaptersOf(about);
  place = Math.min(store.get(`place.${about.character}`, chapters + 1), chapters + 1);
  document.title = `${title(about)} · CamelBell`;
  showCharacters();
  showTalk();
  showTime();
}

function showCharacters() {
  $("characters").replaceChildren(...characters.map((about) => {
    const card = element("label", "", "card"), radio = element("input"), picture = element("img");
    radio.type = "radio";
    radio.name = "character";
    radio.checked = about.character === character.character;
    radio.addEventListener("change", () => choose(about));
    picture.src = `camelbell/avatars/${encodeURIComponent(about.character)}`;
    picture.alt = "";
    card.append(radio, picture, element("span", title(about)));
    return card;
  }));
}

function showFrame() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.documentElement.dataset.theme = theme;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = word(one.dataset.word);
  for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", word(one.dataset.label));
  for (const one of document.querySelectorAll("[data-hint]")) one.placeholder = word(one.dataset.hint);
  const other = language === "zh" ? "en" : "zh";
  $("language").textContent = WORDS[other].name;
  $("language").lang = other;
  $("theme").textContent = WORDS[language].theme[theme];
  $("theme").setAttribute("aria-label", word("look", { theme: WORDS[language].theme[theme] }));
  $("send").textContent = word(running ? "stop" : "send");
}

function save(name, kind, text) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function asMarkdown() {
  const lines = [`# ${word("code", { name: title(character) })}`];
  for (const message of talk) {
    lines.push("", `**${message.role === "user" ? word("you") : title(character)}**`, "", message.content || "…");
    for (const fact of unlike(message.about?.facts ?? [])) {
      lines.push(`- ${fact.text}${fact.part ? ` (${sourceName(fact.part, fact.chapter)})` : ""}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function asJsonl() {
  const messages = talk.filter((m) => m.content).map(({ role, content }) => ({ role, content }));
  return `${JSON.stringify({ model: modelName(), messages })}\n`;
}

function grow() {
  $("say").style.height = "auto";
  $("say").style.height = `${Math.min($("say").scrollHeight + 2, 200)}px`;
}

function listen() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) return running.abort();
    const text = $("say").value.trim();
    if (!text || !character) return;
    $("say").value = "";
    grow();
    say(text);
  });
  $("say").addEventListener("input", grow);
  $("say").addEventListener("keydown", (event) => {
    // An input method's Enter takes its candidate.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!running) $("form").requestSubmit();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
  $("time").addEventListener("input", () => {
    place = Number($("time").value);
    store.set(`place.${character.character}`, place);
    showTime();
  });
  $("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    store.set("language", language);
    showFrame();
    if (!character) return;
    showCharacters();
    showTime();
    if (!running) showTalk();
  });
  $("theme").addEventListener("click", () => {
    theme = { auto: "light", light: "dark", dark: "auto" }[theme] ?? "auto";
    store.set("theme", theme);
    showFrame();
  });
  $("menu").addEventListener("click", () => {
    const open = $("panel").classList.toggle("open");
    $("menu").setAttribute("aria-expanded", String(open));
  });
  $("fresh").addEventListener("click", () => {
    running?.abort();
    running = null;
    talk = [];
    keep(character, talk);
    showTalk();
    $("say").focus();
  });
  $("markdown").addEventListener("click", () => save(`${character.character}.md`, "text/markdown", asMarkdown()));
  $("jsonl").addEventListener("click", () => save(`${character.character}.jsonl`, "application/jsonl", asJsonl()));
  $("door").addEventListener("close", () => {
    useToken($("token").value.trim());
    $("token").value = "";
    start();
  });
}

async function start() {
  try {
    const found = await models();
    const seen = new Map();
    for (const { camelbell: about } of found) if (!seen.has(about.character)) seen.set(about.character, about);
    characters = [...seen.values()];
  } catch (error) {
    return failed(error);
  }
  const last = character?.character ?? store.get("character", "");
  choose(characters.find((about) => about.character === last) ?? characters[0]);
}

listen();
showFrame();
start();
