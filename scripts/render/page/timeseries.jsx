// Lines, areas and bars over time, with annotations and exemplars drawn into them.

import { dateTime, EventBusSrv } from '@grafana/data';
import { PanelContextProvider, TimeSeries } from '@grafana/ui';
import { useLayoutEffect } from 'react';
import { TIME_ZONE } from './frames';

const LEGEND = { showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [] };
const DIAMOND = 3.5;

export function TimeSeriesPanel({ panel, frames, annotations, range, width, height, theme }) {
  const exemplars = panel.answers.flatMap((answer) => answer.exemplars);
  const from = dateTime(range.from);
  const to = dateTime(range.to);
  return (
    <PanelContextProvider value={{ eventBus: new EventBusSrv(), eventsScope: panel.title }}>
      <TimeSeries
        frames={frames.filter((frame) => frame.length > 0)}
        structureRev={1}
        timeRange={{ from, to, raw: { from, to } }}
        timeZone={TIME_ZONE}
        width={width}
        height={height}
        legend={{ ...LEGEND, ...panel.options.legend }}
        options={panel.options}
      >
        {(config) => <Marks config={config} annotations={annotations} exemplars={exemplars} theme={theme} />}
      </TimeSeries>
    </PanelContextProvider>
  );
}

function Marks({ config, annotations, exemplars, theme }) {
  useLayoutEffect(() => {
    const each = (draw) => (plot) => annotations.forEach(({ color, spans }) =>
      inside(plot, theme.visualization.getColorByName(color), draw(plot, spans)));
    config.addHook('drawClear', each(regions));
    config.addHook('draw', each(starts));
    config.addHook('draw', (plot) => inside(plot, 'rgba(80,160,255,0.9)', diamonds(plot, exemplars, config.scaleKeys[1])));
  }, [config]);
  return null;
}

function inside(plot, color, draw) {
  const { left, top, width, height } = plot.bbox;
  const { ctx } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  ctx.fillStyle = color;
  ctx.strokeStyle = color;
  draw(ctx, top, height);
  ctx.restore();
}

// As one shape: ten alerts at a time must not be ten times as red.
const regions = (plot, spans) => (ctx, top, height) => {
  ctx.globalAlpha = 0.07;
  ctx.beginPath();
  for (const [start, end] of spans) {
    const x = plot.valToPos(start, 'x', true);
    ctx.rect(x, top, plot.valToPos(end, 'x', true) - x, height);
  }
  ctx.fill();
};

const starts = (plot, spans) => (ctx, top, height) => {
  ctx.globalAlpha = 0.75;
  ctx.setLineDash([4, 4]);
  for (const [start] of spans) {
    const x = Math.round(plot.valToPos(start, 'x', true)) + 0.5;
    ctx.stroke(new Path2D(`M ${x} ${top} v ${height}`));
    ctx.fill(new Path2D(`M ${x - 4} ${top + height} h 8 l -4 -6`));
  }
};

const diamonds = (plot, exemplars, scale) => (ctx) => {
  for (const { time, value } of exemplars) {
    const x = plot.valToPos(time * 1000, 'x', true);
    const y = plot.valToPos(value, scale, true);
    const side = `${DIAMOND} ${DIAMOND}`;
    ctx.fill(new Path2D(`M ${x} ${y - DIAMOND} l ${side} l -${side} l -${DIAMOND} -${DIAMOND}`));
  }
};
