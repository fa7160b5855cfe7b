/* A stand-in for libnvidia-ml.so.1 that replays a known memory curve; nvml.py compiles it and writes
 * its script. FAKE_NVML names a folder with two files, read again whenever they are replaced:
 *
 * script, one statement a line:
 *   device UUID TOTAL_MIB IDLE_MIB PARENT NAME   TOTAL_MIB 0: it is lost; PARENT: -1, or the number
 *                                   of the GPU that it is a MIG instance of (those come last)
 *   play START_S                    the segments add to the first device from this stamp on
 *   segment SECONDS FROM_MIB TO_MIB one after the other
 *   reserved MIB | latency SECONDS | api 1|2 | accounting 0|1
 *   init CODE                       nvmlInit answers with that
 *   fail N CODE                     so do the Nth memory call of a process, and all later ones
 *   lost START_S | hang START_S     from this stamp on: no GPU, no answer
 * processes, one a line:
 *   PID c|g|m|x MIB ACCOUNTED_MIB   compute, graphics, MPS, ended; -1: not available
 *
 * Stamps are seconds of CLOCK_MONOTONIC. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, VERSION_MISMATCH = 25
};
enum { MAX_DEVICES = 8, MAX_SEGMENTS = 4096, MAX_PROCESSES = 64 };
typedef unsigned long long u64;
static const u64 NOT_AVAILABLE = ~0ULL;
static const double NEVER = 1e300;

typedef struct { char uuid[96], name[96]; double total_mib, idle_mib; int parent; } Device;
typedef struct { double seconds, from_mib, to_mib; } Segment;
typedef struct { unsigned pid; char kind; double mib, accounted_mib; } Process;
typedef struct { unsigned pid; u64 bytes; unsigned gpu_instance, compute_instance; } ProcessInfo;
typedef struct { u64 total, free, used; } MemoryV1;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;
typedef struct {
    unsigned gpu, memory; u64 most, time, start; unsigned running, unused[5];
} Accounting;

static struct {
    Device devices[MAX_DEVICES];
    Segment segments[MAX_SEGMENTS];
    int device_count, segment_count, api, accounting, init, fail_code;
    long fail_call;
    double start_s, reserved_mib, latency_s, lost_s, hang_s;
} script;
static Process processes[MAX_PROCESSES];
static int process_count;
static long memory_calls;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static void pause_s(double seconds) {
    struct timespec span = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    if (seconds > 0) nanosleep(&span, NULL);
}

static u64 bytes(double mib) { return mib < 0 ? NOT_AVAILABLE : (u64)(mib * 1048576); }

static void read_statement(const char *line) {
    Device *d = &script.devices[script.device_count];
    Segment *s = &script.segments[script.segment_count];
    if (script.device_count < MAX_DEVICES &&
        sscanf(line, "device %95s %lf %lf %d %95[^\n]", d->uuid, &d->total_mib, &d->idle_mib,
               &d->parent, d->name) == 5)
        script.device_count++;
    if (script.segment_count < MAX_SEGMENTS &&
        sscanf(line, "segment %lf %lf %lf", &s->seconds, &s->from_mib, &s->to_mib) == 3)
        script.segment_count++;
    sscanf(line, "play %lf", &script.start_s);
    sscanf(line, "reserved %lf", &script.reserved_mib);
    sscanf(line, "latency %lf", &script.latency_s);
    sscanf(line, "api %d", &script.api);
    sscanf(line, "accounting %d", &script.accounting);
    sscanf(line, "init %d", &script.init);
    sscanf(line, "fail %ld %d", &script.fail_call, &script.fail_code);
    sscanf(line, "lost %lf", &script.lost_s);
    sscanf(line, "hang %lf", &script.hang_s);
}

static void read_process(const char *line) {
    Process *p = &processes[process_count];
    if (process_count < MAX_PROCESSES &&
        sscanf(line, "%u %c %lf %lf", &p->pid, &p->kind, &p->mib, &p->accounted_mib) == 4)
        process_count++;
}

/* Opens a file of the folder if it is another one than at the last call; else NULL. */
static FILE *open_if_new(const char *name, struct stat *last) {
    const char *folder = getenv("FAKE_NVML");
    char path[4096];
    struct stat found;
    snprintf(path, sizeof path, "%s/%s", folder ? folder : ".", name);
    if (stat(path, &found) != 0) return NULL;
    if (found.st_ino == last->st_ino && found.st_mtim.tv_sec == last->st_mtim.tv_sec &&
        found.st_mtim.tv_nsec == last->st_mtim.tv_nsec)
        return NULL;
    *last = found;
    return fopen(path, "r");
}

/* Every call begins here: reads what is new, and hangs if it is time to. */
static void begin(void) {
    static struct stat script_file, processes_file;
    char line[512];
    FILE *file = open_if_new("script", &script_file);
    if (file) {
        memset(&script, 0, sizeof script);
        script.lost_s = script.hang_s = NEVER;
        while (fgets(line, sizeof line, file)) read_statement(line);
        fclose(file);
    }
    file = open_if_new("processes", &processes_file);
    if (file) {
        process_count = 0;
        while (fgets(line, sizeof line, file)) read_process(line);
        fclose(file);
    }
    while (now_s() >= script.hang_s) pause();
}

/* The same for a call about a device, which may be lost. */
static int begin_with(const Device *device) {
    begin();
    if (device == NULL) return INVALID_ARGUMENT;
    return device->total_mib == 0 || now_s() >= script.lost_s ? GPU_IS_LOST : SUCCESS;
}

static double used_mib(const Device *device) {
    double left_s = now_s() - script.start_s, played_mib = 0;
    if (device != &script.devices[0] || left_s < 0) return device->idle_mib;
    for (int i = 0; i < script.segment_count; i++) {
        const Segment *s = &script.segments[i];
        if (left_s < s->seconds) {
            played_mib = s->from_mib + (s->to_mib - s->from_mib) * left_s / s->seconds;
            break;
        }
        left_s -= s->seconds;
    }
    return device->idle_mib + played_mib;
}

static int read_memory(const Device *device, MemoryV2 *memory) {
    int code = begin_with(device);
    if (code != SUCCESS) return code;
    if (script.fail_call && ++memory_calls >= script.fail_call) return script.fail_code;
    /* The value is that of the middle of the call. */
    pause_s(script.latency_s / 2);
    memory->used = bytes(used_mib(device));
    pause_s(script.latency_s / 2);
    memory->total = bytes(device->total_mib);
    memory->reserved = bytes(script.reserved_mib);
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(const Device *device, MemoryV1 *memory) {
    MemoryV2 v2;
    int code = read_memory(device, &v2);
    *memory = (MemoryV1){v2.total, v2.free, v2.used + v2.reserved};
    return code;
}

int nvmlDeviceGetMemoryInfo_v2(const Device *device, MemoryV2 *memory) {
    begin();
    if (script.api == 1) return FUNCTION_NOT_FOUND;
    if (memory->version != (sizeof(MemoryV2) | 2 << 24)) return VERSION_MISMATCH;
    return read_memory(device, memory);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    begin();
    return script.device_count || script.init ? script.init : DRIVER_NOT_LOADED;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) { return code == 999 ? "Unknown Error" : "Stand-in error"; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "999.0");
    return SUCCESS;
}

/* Of whole GPUs: they come before MIG instances in the script, so that numbers are indices. */
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 0;
    for (int i = 0; i < script.device_count; i++) *count += script.devices[i].parent < 0;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    *device = (int)index < script.device_count ? &script.devices[index] : NULL;
    return begin_with(*device);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    for (int i = 0; i < script.device_count; i++) {
        *device = &script.devices[i];
        if (strcmp((*device)->uuid, uuid) == 0) return begin_with(*device);
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(const Device *device, char *uuid, unsigned length) {
    snprintf(uuid, length, "%s", device->uuid);
    return begin_with(device);
}

int nvmlDeviceGetName(const Device *device, char *name, unsigned length) {
    snprintf(name, length, "%s", device->name);
    return begin_with(device);
}

int nvmlDeviceGetMaxMigDeviceCount(const Device *device, unsigned *count) {
    *count = 7;
    return begin_with(device);
}

int nvmlDeviceGetMigDeviceHandleByIndex(const Device *device, unsigned index, Device **instance) {
    unsigned number = 0;
    for (int i = 0; i < script.device_count; i++) {
        *instance = &script.devices[i];
        if ((*instance)->parent == device - script.devices && number++ == index) return SUCCESS;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetMigMode(const Device *device, unsigned *current, unsigned *pending) {
    Device *instance;
    *current = *pending = nvmlDeviceGetMigDeviceHandleByIndex(device, 0, &instance) == SUCCESS;
    return begin_with(device);
}

static int list(const Device *device, char kind, unsigned *count, ProcessInfo *infos) {
    unsigned room = *count, found = 0;
    int code = begin_with(device);
    if (code != SUCCESS) return code;
    for (int i = 0; i < process_count; i++) {
        if (processes[i].kind != kind) continue;
        if (found < room)
            infos[found] = (ProcessInfo){processes[i].pid, bytes(processes[i].mib), ~0u, ~0u};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(const Device *d, unsigned *count, ProcessInfo *infos) {
    return list(d, 'c', count, infos);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(const Device *d, unsigned *count, ProcessInfo *infos) {
    if (d->parent >= 0) return NOT_SUPPORTED; /* as on MIG */
    return list(d, 'g', count, infos);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(const Device *d, unsigned *count,
                                               ProcessInfo *infos) {
    return list(d, 'm', count, infos);
}

int nvmlDeviceGetAccountingMode(const Device *device, unsigned *mode) {
    *mode = script.accounting;
    return begin_with(device);
}

/* Kept of running and of ended processes. */
int nvmlDeviceGetAccountingStats(const Device *device, unsigned pid, Accounting *stats) {
    int code = begin_with(device);
    if (code != SUCCESS) return code;
    for (int i = 0; i < process_count; i++) {
        if (processes[i].pid != pid) continue;
        memset(stats, 0, sizeof *stats);
        stats->most = bytes(processes[i].accounted_mib);
        return SUCCESS;
    }
    return NOT_FOUND;
}
