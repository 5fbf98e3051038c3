#include "driver.h"

int save_pairs(const char *path, const char *const keys[], const char *const values[], int count);

int main(int argc, char **argv)
{
    const char *keys[4], *values[4];
    int count = (argc - 2) / 2;
    for (int i = 0; i < count; i++) {
        keys[i] = argv[2 + 2 * i];
        values[i] = argv[3 + 2 * i];
    }
    printf("%d\n", save_pairs(argv[1], keys, values, count));
    return 0;
}
