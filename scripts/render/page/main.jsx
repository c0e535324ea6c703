// One dashboard as one page: its panels in their grid, drawn from what Prometheus answered.

import '@fontsource-variable/inter/wght.css';
import 'uplot/dist/uPlot.min.css';
import './page.css';

import { cacheFieldDisplayNames, createTheme, dateTimeFormat, renderMarkdown, ThemeContext } from '@grafana/data';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { Component } from 'react';
import { createRoot } from 'react-dom/client';
import { MemoryRouter } from 'react-router-dom';
import { completed, framesOf, TIME_ZONE } from './frames';
import { HeatmapPanel } from './heatmap';
import { StatesPanel } from './states';
import { BarGaugePanel, GaugePanel, StatPanel } from './tiles';
import { TimeSeriesPanel } from './timeseries';

const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
const SIDE = 16;
const theme = createTheme({ colors: { mode: 'dark' }, typography: { fontFamily: "'Inter Variable', sans-serif" } });
const content = JSON.parse(document.getElementById('content').textContent);
const range = { from: content.from, to: content.to };

const KINDS = {
  timeseries: TimeSeriesPanel,
  stat: StatPanel,
  gauge: GaugePanel,
  bargauge: BarGaugePanel,
  heatmap: HeatmapPanel,
  'state-timeline': StatesPanel,
  table: TablePanel,
};
// These have a place for "no data" of their own.
const SPEAKING = ['stat', 'gauge', 'bargauge'];

function TablePanel({ panel, frames, width, height }) {
  cacheFieldDisplayNames(frames); // The table's head reads them from there.
  return (
    <TableNG data={frames[0]} width={width} height={height} noHeader={panel.options.showHeader === false}
      cellHeight={panel.options.cellHeight} fieldConfig={panel.fieldConfig} structureRev={1} enableVirtualization={false} />
  );
}

function Text({ panel }) {
  return <div className="text markdown-html" dangerouslySetInnerHTML={{ __html: renderMarkdown(panel.options.content ?? '') }} />;
}

function Message({ text, kind }) {
  return <div className={`message ${kind ?? ''}`}>{text}</div>;
}

function Content({ panel, frames, width, height }) {
  if (panel.type === 'text') {
    return <Text panel={panel} />;
  }
  const error = panel.answers.find((answer) => answer.error)?.error;
  if (error && !frames.length) {
    return <Message kind="error" text={error} />;
  }
  const Drawn = KINDS[panel.type];
  if (!Drawn) {
    throw new Error(`there is no drawing for panels of type ${panel.type}`);
  }
  if (!frames.length && !SPEAKING.includes(panel.type)) {
    return <Message text={panel.fieldConfig.defaults.noValue || 'No data'} />;
  }
  return (
    <Drawn panel={panel} frames={frames} annotations={content.annotations} range={range}
      width={width} height={height} theme={theme} />
  );
}

// One panel that cannot be drawn leaves the others alone.
class Guard extends Component {
  state = { error: null };

  static getDerivedStateFromError(error) {
    return { error };
  }

  render() {
    return this.state.error ? (
      <Message kind="error undrawn" text={`Not drawn: ${this.state.error.message}`} />
    ) : (
      this.props.children
    );
  }
}

function Placed({ panel, frames }) {
  const { x, y, w, h } = panel.gridPos;
  const column = (content.width - 2 * SIDE + GAP) / COLUMNS;
  const box = {
    left: SIDE + x * column,
    top: y * (CELL + GAP),
    width: w * column - GAP,
    height: h * (CELL + GAP) - GAP,
  };
  if (panel.type === 'row') {
    return <h2 className="row" style={{ ...box, position: 'absolute' }}>{panel.title}</h2>;
  }
  const padding = panel.type === 'table' ? 'none' : 'md';
  return (
    <div data-title={panel.title} style={{ ...box, position: 'absolute' }}>
      <PanelChrome title={panel.title} width={box.width} height={box.height} padding={padding}
        titleItems={panel.answers.some(({ error }) => error) && <b className="failed">query error</b>}>
        {(width, height) => (
          <Guard>
            <Content panel={panel} frames={frames} width={width} height={height} />
          </Guard>
        )}
      </PanelChrome>
    </div>
  );
}

function Page({ drawn }) {
  const time = (at, format) => dateTimeFormat(at, { format, timeZone: TIME_ZONE });
  const bottom = Math.max(...content.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <div className="page" style={{ width: content.width }}>
      <header>
        <h1>{content.title}</h1>
        <span className="time">
          {time(range.from, 'YYYY-MM-DD HH:mm:ss')} to {time(range.to, 'HH:mm:ss')} UTC
        </span>
      </header>
      <div className="choices">
        {content.variables.filter(({ text }) => text).map(({ label, text }) => (
          <span key={label} className="choice"><b>{label}</b>{text}</span>
        ))}
        <span className="filler" />
        {content.annotations.map(({ name, color, spans, error }) => (
          <span key={name} className="annotation">
            <i style={{ borderColor: theme.visualization.getColorByName(color) }} />
            {name} <em>{error ? 'query error' : spans.length || 'none'}</em>
          </span>
        ))}
      </div>
      <main style={{ height: bottom * (CELL + GAP) }}>
        {drawn.map(({ panel, frames }) => <Placed key={panel.id} panel={panel} frames={frames} />)}
      </main>
      <footer>Rendered with Grafana's component libraries from live data; not a Grafana screenshot.</footer>
    </div>
  );
}

// What a reader of the picture could not see.
function notes() {
  const found = [];
  for (const box of document.querySelectorAll('[data-title]')) {
    const inner = [...box.querySelectorAll('*')];
    const scrolls = inner.some((one) => {
      const { overflowX, overflowY } = getComputedStyle(one);
      return (
        (/auto|scroll/.test(overflowY) && one.scrollHeight > one.clientHeight + 2) ||
        (/auto|scroll/.test(overflowX) && one.scrollWidth > one.clientWidth + 2)
      );
    });
    const cut = inner.some(
      (one) => one.getAttribute('role') === 'gridcell' && one.scrollWidth > one.clientWidth + 1,
    );
    if (scrolls || cut) {
      found.push(`does not fit into its panel: ${box.dataset.title}`);
    }
    const heading = box.querySelector('h2');
    const words = document.createRange();
    words.selectNodeContents(heading);
    if (words.getBoundingClientRect().width > heading.getBoundingClientRect().width) {
      found.push(`title is cut off: ${box.dataset.title}`);
    }
  }
  return found;
}

const settled = () => new Promise((done) => setTimeout(done, 700));

async function start() {
  await document.fonts.load("400 14px 'Inter Variable'");
  await document.fonts.load("500 14px 'Inter Variable'");
  const drawn = await Promise.all(
    content.panels.map(async (given) => {
      const panel = { options: {}, ...given, fieldConfig: completed(given.fieldConfig) };
      return { panel, frames: panel.answers ? await framesOf(panel, theme) : [] };
    }),
  );
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <MemoryRouter>
        <Page drawn={drawn} />
      </MemoryRouter>
    </ThemeContext.Provider>,
  );
  window.drawn = async () => {
    await document.fonts.ready;
    await settled();
    return {
      height: Math.ceil(document.querySelector('.page').getBoundingClientRect().height),
      notes: notes(),
      undrawn: [...document.querySelectorAll('.undrawn')].map((one) => [
        one.closest('[data-title]').dataset.title,
        one.textContent,
      ]),
    };
  };
}

start();
