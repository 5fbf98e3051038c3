#include <stdio.h>

struct entry {
    const char *label;
    int enabled;
};

/* Prints a menu: "N) LABEL" for each entry, from 1 on, and " (off)" after those that are not enabled. */
void print_menu(const struct entry *entries, int count)
{
    for (int i = 0; i < count; i++) {
