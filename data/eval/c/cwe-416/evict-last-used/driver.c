#include "driver.h"

struct item {
    char key[16];
    int value;
};

struct cache {
    struct item *slots[4];
    struct item *last;
};

void evict(struct cache *cache, const char *key);

int main(int argc, char **argv)
{
    struct cache cache = {{NULL}, NULL};
    for (int i = 0; i < 3; i++) {
        cache.slots[i] = exact(sizeof(struct item));
        sprintf(cache.slots[i]->key, "k%d", i);
        cache.slots[i]->value = 10 * i;
    }
    cache.last = cache.slots[atoi(argv[1])];
    for (int i = 2; i < argc; i++)
        evict(&cache, argv[i]);
    int sum = 0, left = 0;
    for (int i = 0; i < 4; i++)
        if (cache.slots[i] != NULL)
            left++, sum += cache.slots[i]->value;
    printf("left %d sum %d last %s\n", left, sum, cache.last ? cache.last->key : "-");
    return 0;
}
