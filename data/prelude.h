/*
 * Declarations that the C functions of this data set refer to, so that each
 * can be compiled on its own with `gcc -fsyntax-only -include prelude.h`.
 * Nothing here is implemented, and nothing here is training data.
 */
#ifndef DEEPGUARD_DATA_PRELUDE_H
#define DEEPGUARD_DATA_PRELUDE_H

#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

void log_info(const char *format, ...);
void log_error(const char *format, ...);
uint16_t get_u16(const uint8_t *p);
uint32_t get_u32(const uint8_t *p);

/* cwe-125 */
#define ECHO_HEADER 4
#define ECHO_REPLY 2
struct palette { size_t count; struct { uint8_t r, g, b; } *color; };
struct bdf_font { uint32_t first, count; const uint16_t *offset; const uint8_t *bits; size_t bits_len; int height; };
struct sensor { int id; int unit; double value; double low; double high; };

/* cwe-190 */
struct matrix { size_t rows, cols; double *cell; };
struct outbuf { uint8_t *data; uint32_t len, cap; };
struct bitmap { uint32_t width, height; uint8_t *rgba; };
struct keymap_entry { uint32_t code; char name[28]; };
struct keymap { uint32_t count; struct keymap_entry *entry; };
struct clip { uint32_t channels, frames, rate; int16_t *samples; };
int read_exact(int fd, void *buffer, size_t length);

/* cwe-416 */
struct timer { struct timer *next; uint64_t due; char *label; void (*fire)(void *); void *arg; };
struct wheel { struct timer *head; unsigned pending; };
struct ring { size_t head, tail, cap; uint8_t *data; };
struct peer { int fd; int state; unsigned errors; struct ring *rx; struct ring *tx; };
enum { PEER_IDLE, PEER_UP, PEER_DOWN };
void ring_clear(struct ring *ring);
void ring_free(struct ring *ring);
struct mark { long line; int kind; char name[24]; };
struct marklist { struct mark *mark; size_t count, cap; };
struct job { int id; int state; int priority; char *spec; struct job *next; };
struct queue { struct job *head; int next_id; unsigned length; };
enum { JOB_NEW, JOB_READY };
int job_parse(struct job *job, const char *spec);
struct feed { int id; int state; char *url; unsigned interval; struct feed *next; };
struct reader { struct feed *first; int last_id; unsigned feeds; };
int feed_parse_options(struct feed *feed, const char *options);

/* cwe-476 */
struct track { char title[64]; unsigned seconds; struct track *next; };
struct playlist { struct track *first, *last; unsigned length; unsigned seconds; };
struct header { char *name; char *value; };
struct route { uint32_t prefix; int mask; int metric; char via[16]; };
struct route_table { struct route *route; size_t count; unsigned changes; };
struct route *route_find(struct route_table *table, uint32_t prefix, int mask);
struct settings { unsigned port; unsigned workers; bool verbose; char name[32]; };
struct contact { char name[48]; char phone[24]; struct contact *next; };
struct phonebook { struct contact *first, *last; unsigned length; };

/* cwe-787 */
#define MAX_CHANNELS 16
struct session { unsigned id; char user[32]; char banner[96]; time_t since; };
struct mixer { uint16_t gain[MAX_CHANNELS]; uint8_t muted[MAX_CHANNELS]; unsigned updates; };
struct station { char id[16]; double lat, lon; uint8_t key[32]; size_t key_len; bool known; };
struct export_job { int id; char path[64]; FILE *file; unsigned rows; };

#endif
