#include "driver.h"

int count_grades(const int *grades, int n, int counts[6]);

int main(int argc, char **argv)
{
    int grades[16];
    int *counts = exact(6 * sizeof *counts);
    for (int i = 1; i < argc; i++)
        grades[i - 1] = atoi(argv[i]);
    int skipped = count_grades(grades, argc - 1, counts);
    printf("%d %d %d %d %d %d skipped %d\n", counts[0], counts[1], counts[2], counts[3], counts[4], counts[5], skipped);
    return 0;
}
