// What an operator changes from the page: a node's state, a conviction. Each change brings the token,
// which stays in this page's memory alone and is forgotten when it is closed or reloaded.

const STATES = [
  { state: "active", word: "Activate" },
  { state: "draining", word: "Drain" },
  { state: "maintenance", word: "Maintenance" },
];

export class Changes {
  constructor() {
    this.token = "";
    this.said = document.getElementById("change-said");
    this.tokenSaid = document.getElementById("token-said");
    const form = document.getElementById("token-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const input = document.getElementById("token");
      this.token = input.value.trim();
      input.value = "";
      this.explain();
      this.enable();
    });
  }

  // `takes`: this gateway takes changes at all.
  allow(takes) {
    this.takes = takes;
    this.explain();
  }

  explain() {
    const words = !this.takes
      ? "this gateway takes no changes: it is told of no token (admin.token_file)"
      : this.token ? "it is kept until this page is closed" : "it stands in run/admin.token; without it nothing is changed";
    if (this.tokenSaid.textContent !== words) this.tokenSaid.textContent = words;
  }

  enable() {
    for (const button of document.querySelectorAll("button.change")) {
      button.disabled = !this.token || !this.takes || button.dataset.now === "true";
    }
  }

  switches(item) {
    const group = document.createElement("div");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", `State of ${item.name}`);
    for (const { state, word } of STATES) {
      const button = this.button(word, () => this.set(item.name, state, false));
      button.dataset.state = state;
      group.append(button);
    }
    return group;
  }

  lifter(item) {
    const group = document.createElement("div");
    group.append(this.button("Lift", () => this.lift(item)));
    return group;
  }

  // Shows which state is wanted now.
  show(group, item) {
    for (const button of group.children) {
      const now = item !== undefined && button.dataset.state === item.wanted;
      button.dataset.now = String(now);
      if (button.dataset.state) button.setAttribute("aria-pressed", String(now));
      button.disabled = !this.token || !this.takes || now;
    }
  }

  button(word, act) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "change";
    button.textContent = word;
    button.disabled = !this.token;
    button.addEventListener("click", act);
    return button;
  }

  async set(name, state, force) {
    const path = `/api/v1/nodes/${encodeURIComponent(name)}/state`;
    const { ok, status, answer } = await this.send("PUT", path, { state, force });
    if (ok) {
      this.say(`${name} is to be ${state}${answer.warning ? `: ${answer.warning}` : ""}`, answer.warning);
    } else if (status === 409) {
      this.say(`${name} stays as it is: ${answer.detail}. `, true);
      this.said.append(this.button(`Set it to ${state} all the same`, () => this.set(name, state, true)));
      this.enable();
    } else {
      this.say(`${name} stays as it is: ${answer.detail}`, true);
    }
  }

  async lift(item) {
    const { ok, answer } = await this.send("DELETE", `/api/v1/quarantine/${item.fingerprint}`);
    const what = `${item.method} ${item.target}`;
    this.say(ok ? `${what} is lifted` : `${what} stays: ${answer.detail}`, !ok);
  }

  async send(method, path, body) {
    try {
      const answer = await fetch(path, {
        method,
        headers: { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" },
        body: body && JSON.stringify(body),
      });
      const text = await answer.text();
      const said = text ? JSON.parse(text) : {};
      if (answer.status === 401) {
        this.token = "";
        this.explain();
        this.enable();
      }
      return { ok: answer.ok, status: answer.status, answer: said };
    } catch (error) {
      return { ok: false, status: 0, answer: { detail: `no gateway answers (${error.message})` } };
    }
  }

  say(words, bad) {
    this.said.className = bad ? "bad" : "good";
    this.said.textContent = words;
  }
}
