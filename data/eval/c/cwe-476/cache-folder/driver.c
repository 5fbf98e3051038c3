#include "driver.h"

int cache_folder(char *path, size_t size, const char *name);

int main(int argc, char **argv)
{
    size_t size = atoi(argv[1]);
    char *path = exact(size);
    if (argc > 3)
        setenv("HOME", argv[3], 1);
    else
        unsetenv("HOME");
    int status = cache_folder(path, size, argv[2]);
    printf("%d %s\n", status, status == 0 ? path : "");
    return 0;
}
