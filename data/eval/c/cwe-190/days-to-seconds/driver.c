#include "driver.h"

bool to_seconds(int days, int seconds, int *result);

int main(int argc, char **argv)
{
    int result = 0;
    bool fits = to_seconds(atoi(argv[1]), atoi(argv[2]), &result);
    printf("%d %d\n", fits, fits ? result : 0);
    return 0;
}
