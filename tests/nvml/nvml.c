/* A stand-in for the driver's library, libnvidia-ml.so.1.
 *
 * Every call reads its figures anew from the text file named by the environment variable
 * FAKE_NVML, so that the sensors of a running service can be changed from outside. Replace
 * the file by renaming another one onto it: a file half written is read as it is.
 *
 * A line is `key=value`; lines that start with # do not count. All GPUs share a key, unless
 * it is given an index: `power=90000` and `1.power=250000`. What is not given has the value
 * in brackets. Units are those of the driver.
 *
 *   gpus [1]                    how many there are
 *   driver [999.99.01]          version of the driver
 *   cuda [99000]                newest CUDA it serves: 1000 times major plus 10 times minor
 *   capability [6.1]            compute capability
 *   uuid [GPU-00000000-0000-0000-0000-00000000000N], name [Stand-in GPU]
 *   memory_total [6442450944], memory_used [2147483648]                        bytes
 *   utilization [50], memory_utilization [20]                                  percent
 *   temperature [55], temperature_slowdown [95]                                degrees Celsius
 *   power [80000], power_limit [120000]                                        milliwatts
 *   energy [1000000]                                                           millijoules
 *   clock_sm [1500], clock_memory [4000]                                       MHz
 *   throttle [0]                bit mask of what holds clocks down, for example 0x40
 *   throttle_known [0x1ff]      bit mask of what this GPU can tell
 *   ecc_corrected [0], ecc_uncorrected [0]
 *   xids []                     faults since ever, for example 31,79: each number added at the
 *                               end is reported once to every set of events that listens then; to
 *                               begin again, take them away for a second
 *   event_type [8]              what kind of event they are reported as; 8 is a fault
 *   unsupported []              figures that the GPU does not have: power,ecc_corrected,...
 *   errors []                   figures that fail, with the code: power:999,temperature:4
 *                               Figures go by the names above, and also: memory (both),
 *                               utilization (both), ecc (both), count, events (to register for faults),
 *                               temperature_new and throttle_new (by the calls of newer
 *                               drivers; the older ones still answer)
 *   lost [0]                    1: every question about the GPU says that it is lost
 *   init [0]                    code with which opening the driver fails
 *   hang [0]                    asking for memory takes so many seconds (60 at most), or
 *                               until the line is gone
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10, LOST = 15 };
enum { LINE = 4096 };

typedef struct { unsigned long long total, free, used; } memory_info;
typedef struct { unsigned gpu, memory; } rates;
typedef struct { unsigned version; int sensor, degrees; } temperature_info;
typedef struct {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} event;

enum { SETS = 64 };
typedef struct { int used, gpu, delivered; } event_set;
static event_set sets[SETS];

/* Copies the value of a key; the one with the GPU's index counts before the one without. */
static const char *text(int gpu, const char *key, const char *otherwise, char *value) {
    char line[LINE], own[64];
    int exact = 0;
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    snprintf(own, sizeof own, "%d.%s", gpu, key);
    snprintf(value, LINE, "%s", otherwise);
    while (file && fgets(line, sizeof line, file)) {
        char *equals = strchr(line, '=');
        if (line[0] == '#' || !equals) continue;
        *equals = 0;
        equals[1 + strcspn(equals + 1, "\r\n")] = 0;
        if (!strcmp(line, own)) exact = 1;
        else if (exact || strcmp(line, key)) continue;
        snprintf(value, LINE, "%s", equals + 1);
    }
    if (file) fclose(file);
    return value;
}

static unsigned long long number(int gpu, const char *key, unsigned long long otherwise) {
    char value[LINE];
    return *text(gpu, key, "", value) ? strtoull(value, NULL, 0) : otherwise;
}

/* Nth item of a list with commas, without what follows a colon; NULL when there are fewer. */
static char *item(char *list, int n) {
    while (n-- > 0 && list) list = (list = strchr(list, ',')) ? list + 1 : NULL;
    return list && *list ? list : NULL;
}

static int items(const char *list) {
    int commas = 0;
    for (const char *c = list; *c; c++) commas += *c == ',';
    return *list ? commas + 1 : 0;
}

static int matches(const char *item, const char *name) {
    size_t length = strcspn(item, ",:");
    return strlen(name) == length && !strncmp(item, name, length);
}

/* What a question about this figure answers beside the figure. */
static int code_of(int gpu, const char *name) {
    char list[LINE], *entry;
    text(gpu, "unsupported", "", list);
    for (int n = 0; (entry = item(list, n)); n++)
        if (matches(entry, name)) return NOT_SUPPORTED;
    text(gpu, "errors", "", list);
    for (int n = 0; (entry = item(list, n)); n++)
        if (matches(entry, name)) return atoi(strchr(entry, ':') ? strchr(entry, ':') + 1 : "999");
    return OK;
}

static int code(int gpu, const char *name) {
    return number(gpu, "lost", 0) ? LOST : code_of(gpu, name);
}

static int index_of(void *device) { return (int)(size_t)device - 1; }

static int figure(void *device, const char *name, unsigned long long otherwise, unsigned *value) {
    int failed = code(index_of(device), name);
    if (!failed) *value = (unsigned)number(index_of(device), name, otherwise);
    return failed;
}

static int big_figure(void *device, const char *asked, const char *name,
                      unsigned long long otherwise, unsigned long long *value) {
    int failed = code(index_of(device), asked);
    if (!failed) *value = number(index_of(device), name, otherwise);
    return failed;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void nap(void) {
    struct timespec while_ = {0, 5000000};
    nanosleep(&while_, NULL);
}

/* Opening. */

int nvmlInitWithFlags(unsigned flags) { (void)flags; return (int)number(0, "init", OK); }

int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int failed) {
    switch (failed) {
        case NOT_SUPPORTED: return "Not Supported";
        case NOT_FOUND: return "Not Found";
        case TIMEOUT: return "Timeout";
        case LOST: return "GPU is lost";
        default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *value, unsigned size) {
    char version[LINE];
    int failed = code_of(0, "driver");
    if (!failed) snprintf(value, size, "%s", text(0, "driver", "999.99.01", version));
    return failed;
}

int nvmlSystemGetCudaDriverVersion_v2(int *value) {
    int failed = code_of(0, "cuda");
    if (!failed) *value = (int)number(0, "cuda", 99000);
    return failed;
}

/* Finding. */

int nvmlDeviceGetCount_v2(unsigned *count) {
    char list[LINE], *entry;
    text(0, "errors", "", list);
    for (int n = 0; (entry = item(list, n)); n++)
        if (matches(entry, "count")) return atoi(strchr(entry, ':') + 1);
    *count = (unsigned)number(0, "gpus", 1);
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(size_t)(index + 1);
    return number((int)index, "lost", 0) ? LOST : OK;
}

int nvmlDeviceGetUUID(void *device, char *value, unsigned size) {
    char otherwise[64], uuid[LINE];
    int failed = code(index_of(device), "uuid");
    snprintf(otherwise, sizeof otherwise, "GPU-00000000-0000-0000-0000-%012d", index_of(device));
    if (!failed) snprintf(value, size, "%s", text(index_of(device), "uuid", otherwise, uuid));
    return failed;
}

/* Only used for parts of a GPU (MIG): all of them are the first one's. */
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    (void)uuid;
    return nvmlDeviceGetHandleByIndex_v2(0, device);
}

/* Figures. */

int nvmlDeviceGetName(void *device, char *value, unsigned size) {
    char name[LINE];
    int failed = code(index_of(device), "name");
    if (!failed) snprintf(value, size, "%s", text(index_of(device), "name", "Stand-in GPU", name));
    return failed;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    char value[LINE];
    int failed = code(index_of(device), "capability");
    if (!failed) sscanf(text(index_of(device), "capability", "6.1", value), "%d.%d", major, minor);
    return failed;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_info *memory) {
    int gpu = index_of(device), failed;
    double start = seconds(), most;
    while ((most = (double)number(gpu, "hang", 0)) > 0 && seconds() - start < (most < 60 ? most : 60))
        nap();
    if ((failed = code(gpu, "memory"))) return failed;
    memory->total = number(gpu, "memory_total", 6442450944ULL);
    memory->used = number(gpu, "memory_used", 2147483648ULL);
    memory->free = memory->total - memory->used;
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *device, rates *value) {
    int failed = figure(device, "utilization", 50, &value->gpu);
    value->memory = (unsigned)number(index_of(device), "memory_utilization", 20);
    return failed;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *value) {
    (void)sensor;
    return figure(device, "temperature", 55, value);
}

int nvmlDeviceGetTemperatureV(void *device, temperature_info *value) {
    unsigned degrees = 0;
    int failed = code(index_of(device), "temperature_new");
    if (!failed) failed = figure(device, "temperature", 55, &degrees);
    value->degrees = (int)degrees;
    return failed;
}

int nvmlDeviceGetTemperatureThreshold(void *device, int threshold, unsigned *value) {
    (void)threshold;
    return figure(device, "temperature_slowdown", 95, value);
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *value) {
    return figure(device, "power", 80000, value);
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *value) {
    return figure(device, "power_limit", 120000, value);
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *value) {
    return big_figure(device, "energy", "energy", 1000000, value);
}

int nvmlDeviceGetClockInfo(void *device, int domain, unsigned *value) {
    return domain == 2 ? figure(device, "clock_memory", 4000, value)
                       : figure(device, "clock_sm", 1500, value);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *value) {
    return big_figure(device, "throttle", "throttle", 0, value);
}

int nvmlDeviceGetSupportedClocksThrottleReasons(void *device, unsigned long long *value) {
    return big_figure(device, "throttle_known", "throttle_known", 0x1ff, value);
}

int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *value) {
    int failed = code(index_of(device), "throttle_new");
    return failed ? failed : nvmlDeviceGetCurrentClocksThrottleReasons(device, value);
}

int nvmlDeviceGetSupportedClocksEventReasons(void *device, unsigned long long *value) {
    int failed = code(index_of(device), "throttle_new");
    return failed ? failed : nvmlDeviceGetSupportedClocksThrottleReasons(device, value);
}

int nvmlDeviceGetTotalEccErrors(void *device, int kind, int since, unsigned long long *value) {
    const char *name = kind == 0 ? "ecc_corrected" : "ecc_uncorrected";
    int failed = code(index_of(device), "ecc");
    (void)since;
    return failed ? failed : big_figure(device, name, name, 0, value);
}

/* Faults. A set of events is for the GPU that was registered with it last. */

int nvmlEventSetCreate(void **set) {
    for (int n = 0; n < SETS; n++)
        if (!sets[n].used) {
            sets[n].used = 1;
            *set = &sets[n];
            return OK;
        }
    return NOT_FOUND;
}

int nvmlEventSetFree(void *set) { ((event_set *)set)->used = 0; return OK; }

int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
    char list[LINE];
    event_set *to = set;
    int gpu = index_of(device), failed = code(gpu, "events");
    (void)types;
    if (failed) return failed;
    to->gpu = gpu;
    to->delivered = items(text(gpu, "xids", "", list));
    return OK;
}

int nvmlEventSetWait_v2(void *set, event *value, unsigned milliseconds) {
    double until = seconds() + milliseconds / 1e3;
    event_set *of = set;
    for (;;) {
        char list[LINE], *next;
        int there = items(text(of->gpu, "xids", "", list));
        if (there < of->delivered) of->delivered = there;
        if ((next = item(list, of->delivered))) {
            of->delivered++;
            memset(value, 0, sizeof *value);
            value->device = (void *)(size_t)(of->gpu + 1);
            value->type = number(of->gpu, "event_type", 8);
            value->data = strtoull(next, NULL, 0);
            return OK;
        }
        if (number(of->gpu, "lost", 0)) return LOST;
        if (seconds() >= until) return TIMEOUT;
        nap();
    }
}
