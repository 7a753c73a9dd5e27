// A real Chromium, and pages that fail a test when anything in them breaks.

import assert from 'node:assert/strict';
import AxeBuilder from '@axe-core/playwright';
import { chromium } from 'playwright-core';
import { PASSWORD } from './stack.mjs';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch() {
  return chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: FLAGS });
}

// A page of its own session. `page.complaints` collects what the browser
// complains about: errors, hydration warnings, breaches of the policy.
// `expected` lets through what a test provokes.
export async function openPage(browser, url, { expected, ...options } = {}) {
  const context = await browser.newContext({ baseURL: url, reducedMotion: 'reduce', ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.setDefaultTimeout(20_000);
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    const text = `${message.text()} ${message.location().url}`;
    if (!expected?.test(text)) page.complaints.push(text);
  });
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  return page;
}

export async function signIn(page, password = PASSWORD, user = 'admin') {
  await page.goto('/sign-in');
  await page.getByLabel('User name').fill(user);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

// A page that was just loaded takes what is pressed once it is live.
export async function openLive(page, path) {
  await page.goto(path);
  await page.getByText('Live', { exact: true }).waitFor();
}

// The list stays until the form is there, and has a field for names as well.
export async function newVm(page, title = 'New VM') {
  await page.getByRole('link', { name: title }).first().click();
  await page.getByRole('heading', { name: title, level: 1 }).waitFor();
}

// Fills in the form; ends on the VM's page. Answers the VM's id.
export async function createVm(page, name, { flavor = 'tiny', hold = false } = {}) {
  await newVm(page);
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Flavor').selectOption(flavor);
  if (hold) await page.getByLabel('Hold it').check();
  await page.getByRole('button', { name: 'Create VM' }).click();
  await page.waitForURL(/\/vms\/vm_[0-9a-f]{32}$/);
  return page.url().split('/').at(-1);
}

// Waits until the guest of the console has booted for that time, and its shell
// takes what is typed: what comes before is lost.
export async function booted(page, boots) {
  // A terminal that nobody sees draws nothing.
  await page.locator('.console-screen').scrollIntoViewIfNeeded();
  const shell = new RegExp(`ready boots=${boots}(?!\\d)[^]*~#`);
  await page.locator('.xterm-rows', { hasText: shell }).waitFor({ timeout: 60_000 });
}

// Opens the serial console of a new VM on its page; waits until its guest is up.
export async function openConsole(page) {
  await page.getByRole('button', { name: 'Open the console' }).click();
  await booted(page, 1);
}

// Opens the console of a VM that is up, on its page which was just loaded; waits
// until its shell takes what is typed.
export async function reopenConsole(page) {
  await page.getByText('Live', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Open the console' }).click();
  await page.locator('.console-screen').scrollIntoViewIfNeeded();
  await page.locator('.xterm-rows', { hasText: '~#' }).waitFor({ timeout: 60_000 });
}

// Notes every state the life-cycle picture lights, from now on.
export async function watchStates(page) {
  await page.locator('.diagram:visible').waitFor();
  await page.evaluate(() => {
    // One drawing for wide windows, one for narrow ones.
    const picture = [...document.querySelectorAll('.diagram')].find(
      (svg) => svg.getClientRects().length > 0,
    );
    const lit = () => picture.querySelector('[data-current]')?.getAttribute('data-state');
    window.litStates = [lit()];
    new MutationObserver(() => {
      const state = lit();
      if (state && state !== window.litStates.at(-1)) window.litStates.push(state);
    }).observe(picture, { attributes: true, subtree: true, attributeFilter: ['data-current'] });
  });
}

export const litStates = (page) => page.evaluate(() => window.litStates);

export async function untilState(page, state, timeout = 60_000) {
  await page.locator(`.diagram:visible [data-state="${state}"][data-current]`).waitFor({ timeout });
}

// Does something of the menu that has every action.
export async function choose(page, action) {
  await page.getByRole('button', { name: 'All actions' }).click();
  await page.getByRole('menuitem', { name: new RegExp(`^${action}\\b`) }).click();
}

// Answers the open question.
export async function confirm(page, answer) {
  await page.getByRole('dialog').getByRole('button', { name: answer }).click();
}

// Presses Tab until the focus is on the button or link of that name.
export async function tabTo(page, name) {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press('Tab');
    const focused = await page.evaluate(() => {
      const { activeElement: element } = document;
      return element.ariaLabel ?? element.innerText?.trim();
    });
    if (focused === name) return;
  }
  throw new Error(`no way to ${name} with the Tab key`);
}

// axe finds nothing here, and nothing is wider than the window.
export async function checkPage(page, what) {
  // While the page is being taken over its title is set anew.
  await page.waitForFunction(() => document.title !== '');
  const { violations } = await new AxeBuilder({ page }).analyze();
  const found = violations.map(({ id, nodes }) => `${what} ${id}: ${nodes[0].html}`);
  assert.deepEqual(found, []);
  const overflow = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  assert.equal(overflow, 0, `${what} is wider than the window`);
}

// Runs `body` in every combination of colours and width.
export async function inEveryLook(body) {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 390]) {
      await body({ colorScheme, viewport: { width, height: 900 } }, `${colorScheme}-${width}`);
    }
  }
}

let questions = 0;

// The word a shell command prints at the serial console.
export async function word(page, command) {
  questions += 1;
  const tag = `q${questions}`;
  await type(page, `echo ${tag}=$(${command})=`);
  const answer = await page.waitForFunction(
    (tag) => document.querySelector('.xterm-rows').innerText.match(`${tag}=([\\w-]+)=`)?.[1],
    tag,
    { timeout: 60_000 },
  );
  return answer.jsonValue();
}

// The number it prints.
export const number = async (page, command) => Number(await word(page, command));

// A counter that lives in the guest's memory alone, in /run/count.
export async function startCounting(page) {
  const count = 'n=0; while :; do n=$((n+1)); echo $n >/run/count; sleep 0.1; done &';
  await number(page, `sh -c '${count}' >/dev/null 2>&1; echo 0`);
}

export const counted = (page) => number(page, 'cat /run/count');

async function type(page, command) {
  await page.locator('.console-screen .xterm-rows').waitFor();
  await page.locator('.console-screen textarea').focus();
  await page.keyboard.type(command);
  await page.keyboard.press('Enter');
}

// Types at the serial console and waits for the answer, which must not be in what is typed: the screen shows that, too.
export async function ask(page, command, answer, timeout = 60_000) {
  await type(page, command);
  await page.waitForFunction(
    (pattern) => new RegExp(pattern).test(document.querySelector('.xterm-rows').innerText),
    answer,
    { timeout },
  );
}
