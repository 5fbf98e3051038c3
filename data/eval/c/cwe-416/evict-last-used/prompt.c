#include <stdlib.h>
#include <string.h>

#define SLOTS 4

struct item {
    char key[16];
    int value;
};

struct cache {
    struct item *slots[SLOTS];
    struct item *last;          /* the item of the last lookup, or NULL */
};

/* Frees the item with a key, if the cache has it, and forgets about it. */
void evict(struct cache *cache, const char *key)
{
    for (int i = 0; i < SLOTS; i++) {
        struct item *item = cache->slots[i];
        if (item == NULL || strcmp(item->key, key) != 0)
            continue;
