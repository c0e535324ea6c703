// Lines, areas and bars over time, with annotations and exemplars drawn into them.

import { dateTime, EventBusSrv } from '@grafana/data';
import { PanelContextProvider, TimeSeries } from '@grafana/ui';
import { useLayoutEffect } from 'react';
import { TIME_ZONE } from './frames';

const LEGEND = { showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [] };
const DIAMOND = 3.5;

export function TimeSeriesPanel({ panel, frames, annotations, range, width, height, theme }) {
  const drawn = frames.filter((frame) => frame.length > 0);
  const exemplars = panel.answers.flatMap((answer) => answer.exemplars);
  const from = dateTime(range.from);
  const to = dateTime(range.to);
  return (
    <PanelContextProvider value={{ eventBus: new EventBusSrv(), eventsScope: panel.title }}>
      <TimeSeries
        frames={drawn}
        structureRev={1}
        timeRange={{ from, to, raw: { from, to } }}
        timeZone={TIME_ZONE}
        width={width}
        height={height}
        legend={{ ...LEGEND, ...panel.options.legend }}
        options={panel.options}
      >
        {(config) => (
          <Marks config={config} annotations={annotations} exemplars={exemplars} theme={theme} />
        )}
      </TimeSeries>
    </PanelContextProvider>
  );
}

function Marks({ config, annotations, exemplars, theme }) {
  useLayoutEffect(() => {
    config.addHook('drawClear', (plot) => drawRegions(plot, annotations, theme));
    config.addHook('draw', (plot) => {
      drawLines(plot, annotations, theme);
      drawDiamonds(plot, exemplars, config.scaleKeys[1]);
    });
  }, [config]);
  return null;
}

function inside(plot, draw) {
  const { left, top, width, height } = plot.bbox;
  plot.ctx.save();
  plot.ctx.beginPath();
  plot.ctx.rect(left, top, width, height);
  plot.ctx.clip();
  draw(plot.ctx, left, top, width, height);
  plot.ctx.restore();
}

function drawRegions(plot, annotations, theme) {
  inside(plot, (ctx, left, top, width, height) => {
    for (const { color, spans } of annotations) {
      ctx.globalAlpha = 0.07;
      ctx.fillStyle = theme.visualization.getColorByName(color);
      // As one shape: ten alerts at a time shall not be ten times as red.
      ctx.beginPath();
      for (const [start, end] of spans) {
        const x = plot.valToPos(start, 'x', true);
        ctx.rect(x, top, plot.valToPos(end, 'x', true) - x, height);
      }
      ctx.fill();
    }
  });
}

function drawLines(plot, annotations, theme) {
  inside(plot, (ctx, left, top, width, height) => {
    for (const { color, spans } of annotations) {
      ctx.strokeStyle = theme.visualization.getColorByName(color);
      ctx.fillStyle = ctx.strokeStyle;
      ctx.globalAlpha = 0.75;
      ctx.lineWidth = 1;
      ctx.setLineDash([4, 4]);
      for (const [start] of spans) {
        const x = Math.round(plot.valToPos(start, 'x', true)) + 0.5;
        ctx.beginPath();
        ctx.moveTo(x, top);
        ctx.lineTo(x, top + height);
        ctx.stroke();
        ctx.beginPath();
        ctx.moveTo(x - 4, top + height);
        ctx.lineTo(x + 4, top + height);
        ctx.lineTo(x, top + height - 6);
        ctx.fill();
      }
    }
  });
}

function drawDiamonds(plot, exemplars, scale) {
  inside(plot, (ctx) => {
    ctx.fillStyle = 'rgba(80,160,255,0.9)';
    for (const { time, value } of exemplars) {
      const x = plot.valToPos(time * 1000, 'x', true);
      const y = plot.valToPos(value, scale, true);
      ctx.beginPath();
      ctx.moveTo(x, y - DIAMOND);
      ctx.lineTo(x + DIAMOND, y);
      ctx.lineTo(x, y + DIAMOND);
      ctx.lineTo(x - DIAMOND, y);
      ctx.fill();
    }
  });
}
