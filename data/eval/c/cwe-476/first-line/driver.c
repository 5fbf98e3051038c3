#include "driver.h"

int first_line(const char *path, char *line, int size);

int main(int argc, char **argv)
{
    char line[32] = "garbage";
    int length = first_line(argv[1], line, sizeof line);
    printf("%d %s\n", length, length < 0 ? "" : line);
    return 0;
}
